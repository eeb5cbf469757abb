-- steer.lua - merge a change into the dynamic state; JSON null removes a key.
-- ARGV: change, JSON
local state = load_state()
for key, value in pairs(cjson.decode(ARGV[1])) do
  if value == cjson.null then state[key] = nil else state[key] = value end
end
if next(state) == nil then
  redis.call('DEL', base .. ':s')
  return '{}'
end
local text = cjson.encode(state)
redis.call('SET', base .. ':s', text) -- no expiry: a human's word holds until a human takes it back
return text
