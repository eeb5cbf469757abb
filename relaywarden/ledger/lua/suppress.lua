-- suppress.lua - put recipients on the list, or take them off (an empty value); base:y knows when each expires.
-- ARGV: digest, packed suppression, ...
local list, ends = base .. ':x', base .. ':y'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local LATEST = 9e15 -- a score holds no larger whole number exactly, and PEXPIREAT takes none

local function remove(digest)
  redis.call('HDEL', list, digest)
  redis.call('ZREM', ends, digest)
end

local function split(packed)
  local time, kind = string.match(packed, '^(%-?%d+)\t([^\t]*)')
  return tonumber(time), kind
end

-- a person's entry yields to a person's only; of all others the one that ends later stays
local function replaces(time, kind, packed)
  local present_time, present_kind = split(packed)
  if present_time <= now then return true end
  if present_kind == 'manual' then return kind == 'manual' end
  return time >= present_time
end

for i = 1, #ARGV, 2 do
  local digest, packed = ARGV[i], ARGV[i + 1]
  if packed == '' then
    remove(digest)
  else
    local time, kind = split(packed)
    local present = redis.call('HGET', list, digest)
    if not present or replaces(time, kind, present) then
      if time <= now then
        remove(digest)
      else
        redis.call('HSET', list, digest, packed)
        redis.call('ZADD', ends, math.min(time, LATEST), digest)
      end
    end
  end
end

-- In proportion to what was written, so that what has expired never piles up.
local expired = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, math.max(100, #ARGV))
for i = 1, #expired do remove(expired[i]) end
local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')[2]
if last then
  last = string.format('%.0f', last)
  redis.call('PEXPIREAT', list, last)
  redis.call('PEXPIREAT', ends, last)
end
return 1
