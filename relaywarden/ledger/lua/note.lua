-- note.lua - write fields of a topic, which from now on is kept so long.
-- ARGV: topic, ttl (ms; 0: for good), number of fields to write, name, value, ..., name to remove, ...
local key, last = base .. ':n:' .. ARGV[1], 3 + 2 * tonumber(ARGV[3])
for i = 4, last, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', key, ARGV[i]) end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', key, ARGV[2]) else redis.call('PERSIST', key) end
return 1
