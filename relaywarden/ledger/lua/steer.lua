-- steer.lua - merge a change into the dynamic state; null removes a key, `limits`, `grants` and `faults` change entry by entry.
-- ARGV: change, JSON
local state = load_state()
for key, value in pairs(cjson.decode(ARGV[1])) do
  if (key == 'limits' or key == 'grants' or key == 'faults') and type(value) == 'table' then
    local entries = type(state[key]) == 'table' and state[key] or {}
    for name, entry in pairs(value) do
      if entry == cjson.null then entries[name] = nil else entries[name] = entry end
    end
    value = next(entries) and entries or cjson.null
  end
  if value == cjson.null then state[key] = nil else state[key] = value end
end
return save_state(state)
