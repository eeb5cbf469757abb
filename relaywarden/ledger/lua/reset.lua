-- reset.lua - forget what every balance has used; counters and state stay.
-- ARGV: none
local counters_packed = redis.call('HGET', base .. ':b', 'c')
local ttl = redis.call('PTTL', base .. ':b')
for _, name in ipairs(redis.call('HKEYS', base .. ':b')) do
  if sub(name, 1, 2) == 'u:' then redis.call('DEL', base .. ':' .. name) end
end
redis.call('DEL', base .. ':b')
if counters_packed then
  redis.call('HSET', base .. ':b', 'c', counters_packed)
  if ttl > 0 then redis.call('PEXPIRE', base .. ':b', ttl) end
end
return redis.call('GET', base .. ':s') or '{}'
