-- tally.lua - recording.py in Lua: outcomes, to the counters and the record of the hour; replies 1 if it counted, 0 if known.
-- ARGV: when (ms; 0: now), how long the record is kept (ms), source of the mark, its tag, once, how long that is known (ms),
-- number of counters, counter, amount, ..., detail, amount, ...
local at, keep, source, once = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[5]
if source ~= '' then
  local marks = base .. ':n:!mark'
  if redis.call('HGET', marks, source) == ARGV[4] then return 0 end
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
  redis.call('PEXPIREAT', record, whole((hour + 1) * 3600000 + keep))
  load_counters() -- by them the book is listed
  write_counters()
  write_fields()
end
return 1
