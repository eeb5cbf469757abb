-- suppressed.lua - the list, expired entries included: {now, packed suppression, ...}
-- ARGV: none
local reply = redis.call('HVALS', base .. ':x')
table.insert(reply, 1, whole(now))
return reply
