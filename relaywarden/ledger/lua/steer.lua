-- steer.lua - merge a change into the dynamic state; null removes a key, those in BY_ENTRY change entry by entry.
-- ARGV: change, JSON
local BY_ENTRY = {limits = true, grants = true, faults = true, tenants = true, selectors = true, members = true}
local state = load_state()
for key, value in pairs(cjson.decode(ARGV[1])) do
  if BY_ENTRY[key] and type(value) == 'table' then
    local entries = type(state[key]) == 'table' and state[key] or {}
    for name, entry in pairs(value) do
      if entry == cjson.null then entries[name] = nil else entries[name] = entry end
    end
    value = next(entries) and entries or cjson.null
  end
  if value == cjson.null then state[key] = nil else state[key] = value end
end
return save_state(state)
