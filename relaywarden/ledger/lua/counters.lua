-- counters.lua - counters.py in Lua: this hour and today.

local COUNTERS = {
  messages = 3, recipients = 4, bytes = 5, refused = 6, rejected = 7,
  held = 8, delivered = 9, deferred = 10, bounced = 11, complained = 12,
}
local COUNTERS_FORMAT = '<' .. string.rep('d', 22)
local counters

local function load_counters()
  if counters then return counters end
  local hour, day = floor(now / 3600000), floor(now / 86400000)
  local packed = fields['c']
  counters = packed and {unpack_bin(COUNTERS_FORMAT, packed)} or {}
  for i = 3, 22 do
    local current = packed and (i <= 12 and counters[1] == hour or i > 12 and counters[2] == day)
    if not current then counters[i] = 0 end
  end
  counters[1], counters[2] = hour, day
  counters[23] = nil -- struct.unpack also returns the next position
  return counters
end

local function count(name, amount)
  if amount == 0 then return end
  local values, i = load_counters(), COUNTERS[name]
  values[i], values[i + 10] = values[i] + amount, values[i + 10] + amount
end

-- what happened at `time`, in the hour and on the day it happened in, if they are still current
local function count_at(name, amount, time)
  local values, i = load_counters(), COUNTERS[name]
  if floor(time / 3600000) == values[1] then values[i] = values[i] + amount end
  if floor(time / 86400000) == values[2] then values[i + 10] = values[i + 10] + amount end
end

local function uncount(name, amount, charged)
  local values, i = load_counters(), COUNTERS[name]
  if floor(charged / 3600000) == values[1] then values[i] = max(0, values[i] - amount) end
  if floor(charged / 86400000) == values[2] then values[i + 10] = max(0, values[i + 10] - amount) end
end

local function write_counters()
  if counters then save_field('c', pack(COUNTERS_FORMAT, unpack(counters, 1, 22))) end
end
