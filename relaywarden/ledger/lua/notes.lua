-- notes.lua - fields of a topic: {name, value, ...}
-- ARGV: topic, name, ... (none: all)
local key = base .. ':n:' .. ARGV[1]
if #ARGV == 1 then return redis.call('HGETALL', key) end
local reply = {}
for i = 2, #ARGV do
  local value = redis.call('HGET', key, ARGV[i])
  if value then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = value
  end
end
return reply
