-- books.lua - one tenant's books in Redis: keys, clock, and the fields that are read together and written together.
-- It stands first in every verb, then counters, window, unique, state, balances, ticket and accounting, each the twin of the
-- Python module of its name, which gives the binary formats; docs/ledger.rst explains the algorithm, and one contract suite
-- holds both to the same results.
--
-- Keys (KEYS[1] is the base, "rw:{tenant}", so that all of them share one Cluster slot):
--   base:b  hash    balances by key, their older slots by "KEY+"; "c", the counters; "r", the last refusal; "s+", the
--                   scores; "u:KEY", that there is a sketch
--   base:u:KEY  hash  a unique-recipients sketch
--   base:h:HOUR  hash  what happened in an hour, by name
--   base:n:TOPIC  hash  notes; base:n:!once:NAME  string  what was counted or claimed once, and by whom
--   base:x  hash  the suppression list, by the digest of the recipient; expires with its last entry
--   base:y  sorted set  the same digests by the time until which each is listed
--   base:s  string  dynamic state, JSON; expires never
--   base:t:ID  string  a ticket
--   base:q:QUEUE-ID, base:c:CONNECTION  string  the ticket that they stand for
--   base:e:CONNECTION  string  when a message of it ended that had no ticket

local base = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local SLOTS, PARTS = 61, 60
local SETTLED_TTL = 300000
local HISTORY = 3024000000 -- 35 days
local OPEN, REFUSED, SETTLED, REFUNDED = 0, 1, 2, 3
local MESSAGES, RECIPIENTS, BYTES, UNIQUE = 0, 1, 2, 3
local ANONYMOUS = string.rep('\0', 8)

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local pack, unpack_bin, sub, find = struct.pack, struct.unpack, string.sub, string.find

local function whole(number)
  return string.format('%.0f', number)
end

-- never sooner than it expires already
local function keep_until(key, time)
  local ttl = redis.call('PTTL', key)
  if ttl < 0 or ttl < time - now then redis.call('PEXPIREAT', key, whole(time)) end
end

local fields, dirty, longest = {}, {}, 0

local function read_fields(balances)
  local names = {'c', 'r'}
  for i = 1, #balances do
    names[i + 2] = balances[i].meter == UNIQUE and 'u:' .. balances[i].key or balances[i].key
  end
  local values = redis.call('HMGET', base .. ':b', unpack(names))
  for i = 1, #names do fields[names[i]] = values[i] or nil end
end

local function save_field(name, value)
  fields[name] = value
  dirty[name] = true
end

local function write_fields()
  local pairs_, n = {}, 0
  for name in pairs(dirty) do
    pairs_[n + 1], pairs_[n + 2], n = name, fields[name], n + 2
  end
  if n > 0 then
    redis.call('HSET', base .. ':b', unpack(pairs_))
    -- Counters live for two days; balances for their window.  The expiry is moved only when half of it has gone by.
    local ttl = max(longest + longest / 30, 172800000)
    if redis.call('PTTL', base .. ':b') < ttl / 2 then redis.call('PEXPIRE', base .. ':b', whole(ttl)) end
  end
end
