-- window.lua - window.py in Lua: a rolling window, and a token bucket for rates.
--
-- The head is three doubles: newest slot, sum, amount in the newest slot.  The tail, field "KEY+", holds the older slots and
-- is read only when it is needed.
local TAIL = '<' .. string.rep('d', SLOTS)

local function ring_tail(ring)
  if not ring.tail then
    local packed = not ring.fresh and redis.call('HGET', base .. ':b', ring.key .. '+')
    if packed and packed ~= '' then
      ring.tail = {unpack_bin(TAIL, packed)}
    else
      ring.tail = {}
      for i = 1, SLOTS do ring.tail[i] = 0 end
    end
  end
  return ring.tail
end

local function ring_open(key, packed, window)
  local slot = floor(now * PARTS / window)
  local ring = {key = key, window = window, last = slot, total = 0, current = 0, fresh = not packed}
  if not packed then return ring end
  ring.last, ring.total, ring.current = unpack_bin('<ddd', packed)
  if slot - ring.last >= SLOTS then
    ring.last, ring.total, ring.current, ring.fresh, ring.tail_changed = slot, 0, 0, true, true
  elseif ring.last - slot >= SLOTS then
    ring.last, ring.current, ring.fresh, ring.tail_changed = slot, ring.total, true, true
  elseif slot > ring.last then
    if ring.total ~= 0 then
      local tail = ring_tail(ring)
      tail[ring.last % SLOTS + 1] = ring.current
      for number = ring.last + 1, slot do
        local i = number % SLOTS + 1
        ring.total = ring.total - tail[i]
        tail[i] = 0
      end
      ring.tail_changed = true
    end
    ring.last, ring.current = slot, 0
  end
  return ring
end

local function ring_save(ring)
  save_field(ring.key, pack('<ddd', ring.last, ring.total, ring.current))
  if ring.tail_changed then
    local packed = pack(TAIL, unpack(ring_tail(ring), 1, SLOTS))
    save_field(ring.key .. '+', find(packed, '[^%z]') and packed or '')
  end
end

local function ring_take_back(ring, charged, amount)
  local number = min(floor(charged * PARTS / ring.window), ring.last)
  if ring.last - number >= SLOTS then return end
  while amount > 0 and number < ring.last do
    local tail, i = ring_tail(ring), number % SLOTS + 1
    local part = min(amount, tail[i])
    if part > 0 then tail[i], ring.tail_changed = tail[i] - part, true end
    ring.total = ring.total - part
    amount = amount - part
    number = number + 1
  end
  local part = min(amount, ring.current)
  ring.current, ring.total = ring.current - part, ring.total - part
end

local function ring_wait(ring, excess)
  local tail, freed = ring_tail(ring), 0
  for number = ring.last - PARTS, ring.last do
    freed = freed + (number < ring.last and tail[number % SLOTS + 1] or ring.current)
    if freed >= excess then return max(1, ceil((number + SLOTS) * ring.window / PARTS) - now) end
  end
  return ring.window + floor(ring.window / PARTS)
end

local function rate_open(packed, amount, window, burst)
  local rate = {interval = window / amount, burst = burst, arrival = now}
  if packed then
    rate.arrival = min(now + burst * rate.interval, max(now, (unpack_bin('<d', packed))))
  end
  return rate
end

local function rate_wait(rate, amount)
  local missing = rate.arrival + amount * rate.interval - (now + rate.burst * rate.interval)
  return missing > 1e-6 and ceil(missing - 1e-6) or 0
end
