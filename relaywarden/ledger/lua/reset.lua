-- reset.lua - forget what every balance has used; counters, scores and state stay.
-- ARGV: none
local kept = redis.call('HMGET', base .. ':b', 'c', 's+')
local ttl = redis.call('PTTL', base .. ':b')
for _, name in ipairs(redis.call('HKEYS', base .. ':b')) do
  if sub(name, 1, 2) == 'u:' then redis.call('DEL', base .. ':' .. name) end
end
redis.call('DEL', base .. ':b')
if kept[1] then redis.call('HSET', base .. ':b', 'c', kept[1]) end
if kept[2] then redis.call('HSET', base .. ':b', 's+', kept[2]) end
if (kept[1] or kept[2]) and ttl > 0 then redis.call('PEXPIRE', base .. ':b', ttl) end
return redis.call('GET', base .. ':s') or '{}'
