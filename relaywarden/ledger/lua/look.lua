-- look.lua - the ticket of a message: packed, or empty
-- ARGV: queue id
local name = redis.call('GET', base .. ':q:' .. ARGV[1])
return name and redis.call('GET', base .. ':t:' .. name) or ''
