-- tally.lua - recording.py in Lua: outcomes, to the counters and the record of the hour; replies 1 if it counted, 0 if known.
-- ARGV: when (ms; 0: now), how long the record is kept (ms), source of the mark, its tag, once, how long that is known (ms),
-- number of counters, counter, amount, ..., detail, amount, ...
local at, keep, source, once = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[5]
-- a tag N.M is known where the last one was not below it, as a pair of numbers; any other where it is the last one
local function pair(tag)
  local high, low = string.match(tag, '^(%d+)%.(%d+)$')
  if high and #high <= 15 and #low <= 15 then return tonumber(high), tonumber(low) end
end

local function is_known(tag, last)
  local high, low = pair(tag)
  local last_high, last_low = pair(last)
  if not high or not last_high then return tag == last end
  return high < last_high or high == last_high and low <= last_low
end

if source ~= '' then
  local marks = base .. ':n:!mark'
  local last = redis.call('HGET', marks, source)
  if last and is_known(ARGV[4], last) then return 0 end
  redis.call('HSET', marks, source, ARGV[4])
  redis.call('PEXPIRE', marks, ARGV[2])
end
if once ~= '' and not redis.call('SET', base .. ':n:!once:' .. once, '', 'NX', 'PX', ARGV[6]) then return 0 end
if at == 0 or at > now then at = now end
local hour = floor(at / 3600000)
local record, counted = base .. ':h:' .. whole(hour), false
read_fields({})
for i = 8, #ARGV, 2 do
  local amount = tonumber(ARGV[i + 1])
  if amount > 0 then
    redis.call('HINCRBY', record, ARGV[i], ARGV[i + 1])
    counted = true
  end
  if i < 8 + 2 * tonumber(ARGV[7]) then count_at(ARGV[i], amount, at) end
end
if counted then
  keep_until(record, (hour + 1) * 3600000 + keep)
  load_counters() -- by them the book is listed
  write_counters()
  write_fields()
end
return 1
