-- claim.lua - which names nobody claimed before, or the same tag did: {1 or 0, ...}
-- ARGV: tag, ttl (ms), name, ...
local reply, tag = {}, ARGV[1]
for i = 3, #ARGV do
  local key = base .. ':n:!once:' .. ARGV[i]
  local known = redis.call('GET', key)
  if not known then redis.call('SET', key, tag, 'PX', ARGV[2]) end
  reply[i - 2] = (not known or tag ~= '' and known == tag) and 1 or 0
end
return reply
