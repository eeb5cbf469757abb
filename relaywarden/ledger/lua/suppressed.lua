-- suppressed.lua - the list, expired entries included: {now, packed suppression, ...}
-- ARGV: none
local reply = redis.call('HVALS', base .. ':x')
local clock = redis.call('TIME')
table.insert(reply, 1, string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)))
return reply
