-- books.lua - one tenant's books in Redis, and the algorithm of window.py, unique.py, ticket.py, counters.py, balances.py
-- and accounting.py in Lua.  Prepended to every verb; docs/ledger.rst explains the algorithm, the modules named here give
-- the binary formats, and one contract suite holds both to the same results.
--
-- Keys (KEYS[1] is the base, "rw:{tenant}", so that all of them share one Cluster slot):
--   base:b  hash    balances by key, their older slots by "KEY+"; "c", the counters; "r", the last refusal; "u:KEY", that there is a sketch
--   base:u:KEY  hash  a unique-recipients sketch
--   base:s  string  dynamic state, JSON; expires never
--   base:t:ID  string  a ticket
--   base:q:QUEUE-ID, base:c:CONNECTION  string  the ticket that they stand for
--   base:e:CONNECTION  string  when a message of it ended that had no ticket

local base = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local SLOTS, PARTS = 61, 60
local SETTLED_TTL = 300000
local OPEN, REFUSED, SETTLED, REFUNDED = 0, 1, 2, 3
local MESSAGES, RECIPIENTS, BYTES, UNIQUE = 0, 1, 2, 3
local ANONYMOUS = string.rep('\0', 8)

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local pack, unpack_bin, sub, find = struct.pack, struct.unpack, string.sub, string.find

local function whole(number)
  return string.format('%.0f', number)
end

-- fields of base:b: read together, written together ---------------------------------------------------------------------
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

-- counters --------------------------------------------------------------------------------------------------------------
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

local function uncount(name, amount, charged)
  local values, i = load_counters(), COUNTERS[name]
  if floor(charged / 3600000) == values[1] then values[i] = max(0, values[i] - amount) end
  if floor(charged / 86400000) == values[2] then values[i + 10] = max(0, values[i + 10] - amount) end
end

local function write_counters()
  if counters then save_field('c', pack(COUNTERS_FORMAT, unpack(counters, 1, 22))) end
end

-- rolling window --------------------------------------------------------------------------------------------------------
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

-- token bucket ----------------------------------------------------------------------------------------------------------
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

-- sliding HyperLogLog ---------------------------------------------------------------------------------------------------
local REGISTERS, PER_GROUP = 2048, 16

local function sketch_estimate(harmonic, empty)
  local raw = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS * REGISTERS / harmonic
  if raw <= 2.5 * REGISTERS and empty > 0 then raw = REGISTERS * math.log(REGISTERS / empty) end
  return floor(raw + 0.5)
end

local function sketch_move(sketch, slot)
  local back = sketch.last > slot
  sketch.last, sketch.harmonic, sketch.empty = slot, REGISTERS, REGISTERS
  local all = redis.call('HGETALL', sketch.key)
  for i = 1, #all, 2 do
    if all[i] ~= 'z' then
      local packed, kept, best = all[i + 1], {}, {}
      for at = 1, #packed, 4 do
        local register, rank, stamp = unpack_bin('<BBH', packed, at)
        if back or (slot - stamp) % 65536 < SLOTS then
          kept[#kept + 1] = pack('<BBH', register, rank, back and slot % 65536 or stamp)
          best[register] = max(rank, best[register] or 0)
        end
      end
      local value = table.concat(kept)
      if value ~= packed then sketch.changed[all[i]] = value end
      for register = 0, PER_GROUP - 1 do
        if best[register] then
          sketch.harmonic = sketch.harmonic + (2 ^ -best[register] - 1)
          sketch.empty = sketch.empty - 1
        end
      end
    end
  end
end

local function sketch_open(name, window)
  local slot = floor(now * PARTS / window)
  local sketch = {key = base .. ':u:' .. name, name = name, window = window, changed = {}}
  local head = redis.call('HGET', sketch.key, 'z')
  if not head then
    sketch.last, sketch.harmonic, sketch.empty = slot, REGISTERS, REGISTERS
    return sketch
  end
  sketch.last, sketch.harmonic, sketch.empty = unpack_bin('<ddd', head)
  if slot > sketch.last or sketch.last - slot >= SLOTS then sketch_move(sketch, slot) end
  return sketch
end

local function sketch_add(sketch, digest)
  local low, high = unpack_bin('<I4I4', digest)
  local register = low % REGISTERS
  local rest = high * 2097152 + floor(low / REGISTERS)
  local _, bits = math.frexp(rest)
  local rank = 54 - (rest == 0 and 0 or bits)
  local group = whole(floor(register / PER_GROUP))
  register = register % PER_GROUP
  local packed = sketch.changed[group] or redis.call('HGET', sketch.key, group) or ''
  local kept, best = {}, 0
  for at = 1, #packed, 4 do
    local other, other_rank = unpack_bin('<BB', packed, at)
    if other == register then best = max(best, other_rank) end
    if other ~= register or other_rank > rank then kept[#kept + 1] = sub(packed, at, at + 3) end
  end
  kept[#kept + 1] = pack('<BBH', register, rank, sketch.last % 65536)
  sketch.changed[group] = table.concat(kept)
  if rank > best then
    sketch.harmonic = sketch.harmonic + (2 ^ -rank - 2 ^ -best)
    if best == 0 then sketch.empty = sketch.empty - 1 end
  end
end

local function sketch_commit(sketch)
  for field, value in pairs(sketch.changed) do
    if value == '' then redis.call('HDEL', sketch.key, field) else redis.call('HSET', sketch.key, field, value) end
  end
  redis.call('HSET', sketch.key, 'z', pack('<ddd', sketch.last, sketch.harmonic, sketch.empty))
  redis.call('PEXPIRE', sketch.key, whole(sketch.window + sketch.window / 30))
  if not fields['u:' .. sketch.name] then save_field('u:' .. sketch.name, '1') end -- so that reset.lua finds it
end

-- dynamic state ---------------------------------------------------------------------------------------------------------
local function load_state()
  local text = redis.call('GET', base .. ':s')
  return text and cjson.decode(text) or {}
end

local function suspension(state)
  local entry = state.suspended
  if not entry or entry == cjson.null then return nil end
  if type(entry.until_ms) == 'number' and entry.until_ms <= now then return nil end
  return type(entry.reason) == 'string' and entry.reason or ''
end

local function save_state(state)
  if next(state) == nil then
    redis.call('DEL', base .. ':s')
    return '{}'
  end
  local text = cjson.encode(state)
  redis.call('SET', base .. ':s', text) -- no expiry: a human's word holds until a human takes it back
  return text
end

-- grants: {id: {meter, amount, used, until_ms, ...}}; half a millisecond in a ticket's time of charge marks what went there
local GRANTED = 0.5
local METER_NAMES = {[MESSAGES] = 'messages', [RECIPIENTS] = 'recipients', [BYTES] = 'bytes', [UNIQUE] = 'unique_recipients'}
local grants, grant_names, drawn = {}, {}, false

local function open_grants(state)
  if type(state.grants) ~= 'table' then return end
  grants = state.grants
  for name in pairs(grants) do grant_names[#grant_names + 1] = name end
  table.sort(grant_names)
end

local function grant_with_room(meter, amount)
  for _, name in ipairs(grant_names) do
    local grant = grants[name]
    local alive = type(grant.until_ms) ~= 'number' or grant.until_ms > now
    if alive and grant.meter == METER_NAMES[meter] and (grant.used or 0) + amount <= grant.amount then return grant end
  end
end

local function grant_draw(meter, amount)
  local grant = grant_with_room(meter, amount)
  if grant then grant.used, drawn = (grant.used or 0) + amount, true end
end

local function grant_give_back(meter, amount)
  for _, name in ipairs(grant_names) do
    local grant = grants[name]
    if grant.meter == METER_NAMES[meter] and (grant.used or 0) >= amount then
      grant.used, drawn = grant.used - amount, true
      return
    end
  end
end

local function by_grant(time)
  return time % 1 == GRANTED
end

-- balances --------------------------------------------------------------------------------------------------------------
-- A balance as configured arrives as [key, meter, amount, window, burst, observe].
local function open_balances(wire, how, state)
  -- how: "0" enforce, "1" observe, "2" hold what the limits refuse, "3" late: charge in any case
  local balances = {observe = how == '1', hold = how == '2'}
  if state.mode then balances.observe = state.mode == 'observe' end
  if how == '3' then balances.observe = true end
  local overrides = type(state.limits) == 'table' and state.limits or {}
  for i, row in ipairs(cjson.decode(wire)) do
    local burst = row[5] > 0 and row[5] or nil
    balances[i] = {
      key = row[1], meter = row[2], amount = row[3], window = row[4], rated = burst ~= nil,
      -- set by hand for this balance, or for the limit of all logins, domains or clients ("KEY=VALUE")
      allowed = overrides[row[1]] or overrides[string.match(row[1], '^[^=]*')] or burst or row[3], observe = row[6] == 1,
    }
    longest = max(longest, row[4])
  end
  open_grants(state)
  read_fields(balances)
  return balances
end

local function counter_of(balance)
  if not balance.counter then
    local packed = fields[balance.key]
    if balance.meter == UNIQUE then
      balance.counter = sketch_open(balance.key, balance.window)
    elseif balance.rated then
      balance.counter = rate_open(packed, balance.amount, balance.window, balance.allowed)
    else
      balance.counter = ring_open(balance.key, packed, balance.window)
    end
  end
  return balance.counter
end

local function used_of(balance)
  local counter = counter_of(balance)
  if balance.meter == UNIQUE then return sketch_estimate(counter.harmonic, counter.empty) end
  if balance.rated then return ceil((counter.arrival - now) / counter.interval - 1e-9) end
  return counter.total
end

local function amount_of(cost, meter)
  if meter == MESSAGES then return cost.messages end
  if meter == RECIPIENTS then return cost.recipients end
  if meter == BYTES then return cost.size end
  return #cost.digests
end

-- nil if the balance admits the cost, else {key, used, allowed, wait}; wait -1: waiting never helps
local function check_one(balance, cost)
  local amount = amount_of(cost, balance.meter)
  if amount <= 0 then return nil end
  local counter, used, wait = counter_of(balance), used_of(balance), 0
  if balance.meter == UNIQUE then
    for i = 1, #cost.digests do sketch_add(counter, cost.digests[i]) end
    balance.added = true
    local after = sketch_estimate(counter.harmonic, counter.empty)
    if after == used or after <= balance.allowed then return nil end
    wait = balance.allowed > 0 and max(1, floor(balance.window / PARTS)) or -1
    return {balance.key, used, balance.allowed, wait}
  elseif balance.rated then
    wait = rate_wait(counter, amount)
  elseif used + amount > balance.allowed then
    wait = amount <= balance.allowed and ring_wait(counter, used + amount - balance.allowed) or -1
  end
  if amount > balance.allowed then wait = -1 end
  if wait == 0 then return nil end
  return {balance.key, used, balance.allowed, wait}
end

local function longer(first, second)
  if not first then return second end
  if first[4] < 0 then return first end
  return (second[4] < 0 or second[4] > first[4]) and second or first
end

-- {refused, observed = what only an observed limit refuses, granted = {meter = true} for what a grant carries,
-- held = in the place of refused where the account's excess is to be held}
local function check(balances, cost)
  local refused, observed, granted = nil, nil, {}
  for i = 1, #balances do
    local refusal = check_one(balances[i], cost)
    if refusal then
      if balances.observe or balances[i].observe then
        observed = longer(observed, refusal)
      elseif granted[balances[i].meter] or grant_with_room(balances[i].meter, amount_of(cost, balances[i].meter)) then
        granted[balances[i].meter] = true
      else
        refused = longer(refused, refusal)
      end
    end
  end
  if balances.hold then return {held = refused, observed = observed, granted = granted} end
  return {refused = refused, observed = observed, granted = granted}
end

local function charge_balances(balances, cost, granted)
  for meter in pairs(granted) do grant_draw(meter, amount_of(cost, meter)) end
  for i = 1, #balances do
    local balance = balances[i]
    local amount = amount_of(cost, balance.meter)
    if amount > 0 and not granted[balance.meter] then
      local counter = counter_of(balance)
      if balance.meter == UNIQUE then
        if not balance.added then
          for j = 1, #cost.digests do sketch_add(counter, cost.digests[j]) end
        end
        sketch_commit(counter)
      elseif balance.rated then
        counter.arrival = min(counter.arrival + amount * counter.interval, now + counter.burst * counter.interval)
        save_field(balance.key, pack('<d', counter.arrival))
      else
        counter.current, counter.total = counter.current + amount, counter.total + amount
        ring_save(counter)
      end
    end
  end
end

-- entries: {meter, amount, time charged}
local function give_back(balances, entries)
  for j = 1, #entries do
    if entries[j][2] > 0 and by_grant(entries[j][3]) then grant_give_back(entries[j][1], entries[j][2]) end
  end
  for i = 1, #balances do
    local balance = balances[i]
    if balance.meter ~= UNIQUE then
      local counter, touched = counter_of(balance), false
      for j = 1, #entries do
        local entry = entries[j]
        if entry[1] == balance.meter and entry[2] > 0 and not by_grant(entry[3]) then
          touched = true
          if balance.rated then
            counter.arrival = max(now, counter.arrival - entry[2] * counter.interval)
          else
            ring_take_back(counter, entry[3], entry[2])
          end
        end
      end
      if touched and balance.rated then save_field(balance.key, pack('<d', counter.arrival)) end
      if touched and not balance.rated then ring_save(counter) end
    end
  end
  for j = 1, #entries do
    local entry = entries[j]
    if entry[2] > 0 then uncount(METER_NAMES[entry[1]], entry[2], floor(entry[3])) end
  end
end

-- tickets ---------------------------------------------------------------------------------------------------------------
local function refusal_text(refusal)
  return refusal[1] .. '\t' .. whole(refusal[2]) .. '\t' .. whole(refusal[3]) .. '\t' .. whole(refusal[4])
end

local function new_ticket()
  return {phase = OPEN, flags = 0, message = 0, size = 0, sizes = {}, refusal = '', entries = ''}
end

local function load_ticket(name)
  local packed = redis.call('GET', base .. ':t:' .. name)
  if not packed then
    return new_ticket(), false
  end
  local ticket = {size = 0, sizes = {}}
  local parts, length, at
  ticket.phase, ticket.flags, ticket.message, parts, length, at = unpack_bin('<BBdBH', packed)
  for i = 1, parts do
    local size, time
    size, time, at = unpack_bin('<dd', packed, at)
    ticket.size, ticket.sizes[i] = ticket.size + size, {size, time}
  end
  ticket.refusal = sub(packed, at, at + length - 1)
  ticket.entries = sub(packed, at + length)
  return ticket, true
end

local function save_ticket(name, ticket, ttl)
  local head = pack('<BBdBH', ticket.phase, ticket.flags, ticket.message, #ticket.sizes, #ticket.refusal)
  for i = 1, #ticket.sizes do head = head .. pack('<dd', ticket.sizes[i][1], ticket.sizes[i][2]) end
  redis.call('SET', base .. ':t:' .. name, head .. ticket.refusal .. ticket.entries, 'PX', whole(ttl))
end

local function point(name, ticket_name, ttl)
  redis.call('SET', base .. ':' .. name, ticket_name, 'PX', whole(ttl))
end

local function store_ticket(name, ticket, queue_id, connection, open_ttl)
  local ttl = ticket.phase == OPEN and ticket.message > 0 and open_ttl or SETTLED_TTL
  if queue_id ~= '' and ticket.flags % 2 == 0 then
    point('q:' .. queue_id, name, ttl)
    ticket.flags = ticket.flags + 1
  end
  if connection ~= '' then point('c:' .. connection, name, ttl) end
  save_ticket(name, ticket, ttl)
end

-- time this recipient was charged, negative: refused then, 0: new
local function answered(ticket, digest)
  local at = 1
  while true do
    local found = find(ticket.entries, digest, at, true)
    if not found then return 0 end
    if (found - 1) % 16 == 0 then return (unpack_bin('<d', ticket.entries, found + 8)) end
    at = found + 1
  end
end

local function charged_times(ticket)
  local times = {}
  for at = 1, #ticket.entries, 16 do
    local charged = unpack_bin('<d', ticket.entries, at + 8)
    if charged > 0 then times[#times + 1] = charged end
  end
  return times
end

local function forget(ticket, digest)
  local kept = {}
  for at = 1, #ticket.entries, 16 do
    if sub(ticket.entries, at, at + 7) ~= digest then kept[#kept + 1] = sub(ticket.entries, at, at + 15) end
  end
  ticket.entries = table.concat(kept)
end

local function note(ticket, digest, time)
  ticket.entries = ticket.entries .. digest .. pack('<d', time)
end

-- the message's ticket, by its queue id, closed or not; else the open one of its connection; else a name for a new one
local function find_ticket(queue_id, connection)
  for _, name in ipairs({queue_id ~= '' and 'q:' .. queue_id or false, connection ~= '' and 'c:' .. connection or false}) do
    local ticket_name = name and redis.call('GET', base .. ':' .. name)
    if ticket_name then
      local ticket, found = load_ticket(ticket_name)
      if found and (ticket.phase == OPEN or sub(name, 1, 2) == 'q:') then return ticket_name, ticket end
    end
  end
  return 'q:' .. queue_id, nil
end

-- accounting ------------------------------------------------------------------------------------------------------------
local MOST_PARTS = 255

local function add_size(ticket, size, time)
  ticket.size = ticket.size + size
  if #ticket.sizes == MOST_PARTS then size = size + table.remove(ticket.sizes)[1] end
  ticket.sizes[#ticket.sizes + 1] = {size, time}
end

-- bytes off again, the latest first, as entries to be given back
local function take_size(ticket, surplus, entries)
  while surplus > 0 and #ticket.sizes > 0 do
    local last = ticket.sizes[#ticket.sizes]
    local part = min(surplus, last[1])
    if part < last[1] then last[1] = last[1] - part else table.remove(ticket.sizes) end
    entries[#entries + 1] = {BYTES, part, last[2]}
    ticket.size, surplus = ticket.size - part, surplus - part
  end
end

local function book(ticket, balances, cost, granted, held)
  granted = granted or {}
  if held and ticket.flags < 2 then
    ticket.flags = ticket.flags + 2
    count('held', 1)
  end
  if cost.messages == 0 and cost.recipients == 0 and cost.size == 0 and #cost.digests == 0 then return false end
  charge_balances(balances, cost, granted)
  count('messages', cost.messages)
  count('recipients', cost.recipients)
  count('bytes', cost.size)
  local function charged_at(meter) return granted[meter] and now + GRANTED or now end
  if cost.messages > 0 then ticket.message = charged_at(MESSAGES) end
  if cost.size > 0 then add_size(ticket, cost.size, charged_at(BYTES)) end
  for i = 1, cost.recipients do note(ticket, cost.digests[i] or ANONYMOUS, charged_at(RECIPIENTS)) end
  return true
end

local function give_all_back(ticket, balances)
  local entries, kept = {}, {}
  for at = 1, #ticket.entries, 16 do
    local charged = unpack_bin('<d', ticket.entries, at + 8)
    if charged > 0 then
      entries[#entries + 1] = {RECIPIENTS, 1, charged}
    else
      kept[#kept + 1] = sub(ticket.entries, at, at + 15)
    end
  end
  entries[#entries + 1] = {MESSAGES, ticket.message > 0 and 1 or 0, ticket.message}
  take_size(ticket, ticket.size, entries)
  ticket.entries = table.concat(kept)
  ticket.message = 0
  give_back(balances, entries)
end

-- Recipients that Postfix refused after we admitted them (the oldest, so that what stays expires late rather than early)
-- and bytes that were claimed but not sent.
local function give_surplus_back(ticket, balances, recipients, size)
  local surplus = max(0, #charged_times(ticket) - recipients)
  local entries, kept = {}, {}
  if surplus > 0 then
    for at = 1, #ticket.entries, 16 do
      local charged = unpack_bin('<d', ticket.entries, at + 8)
      if charged > 0 and surplus > 0 then
        surplus = surplus - 1
        entries[#entries + 1] = {RECIPIENTS, 1, charged}
      else
        kept[#kept + 1] = sub(ticket.entries, at, at + 15)
      end
    end
    ticket.entries = table.concat(kept)
  end
  if size > 0 and size < ticket.size then take_size(ticket, ticket.size - size, entries) end
  if #entries > 0 then give_back(balances, entries) end
end

local function missing(ticket, recipients, size, digests)
  return {
    messages = ticket.message > 0 and 0 or 1,
    recipients = max(0, recipients - #charged_times(ticket)),
    size = max(0, size - ticket.size),
    digests = digests,
  }
end

local function note_refusal(ticket, refusal)
  ticket.refusal = refusal_text(refusal)
  save_field('r', whole(now) .. '\t' .. ticket.refusal)
  count('refused', 1)
end

-- A message of this connection ended whose ticket is not here, or not yet.
local function note_end(connection)
  if connection ~= '' then redis.call('SET', base .. ':e:' .. connection, whole(now), 'PX', SETTLED_TTL) end
end

-- Whether a late charge comes after the milter's last word, which found no ticket and counted the message by itself.
-- Messages of one connection follow each other: if one of it ended after this was admitted, this one has.
local function is_over(ticket, connection, late)
  if late == 0 or ticket.message > 0 or connection == '' then return false end
  local ended = redis.call('GET', base .. ':e:' .. connection)
  return ended and tonumber(ended) >= now - late
end

-- The end of a ticket; its queue id finds it from now on, so that the same word again changes nothing.
local function close_ticket(name, ticket, phase, queue_id, counter)
  if counter ~= '' then count(counter, 1) end
  ticket.phase = phase
  save_ticket(name, ticket, SETTLED_TTL)
  if queue_id ~= '' then point('q:' .. queue_id, name, SETTLED_TTL) end
end

local function finish(state, ...)
  write_counters()
  write_fields()
  if drawn then save_state(state) end
  return {...}
end

-- The decision as it goes back: {0 admitted | 1 refused | 2 suspended | 3 held, repeated, refusal, reason, granted}.
local function decision(state, code, repeated, refusal, reason, granted)
  return finish(state, code, repeated and 1 or 0, refusal or '', reason or '', granted and next(granted) and 1 or 0)
end

local function found_decision(state, result, repeated)
  if result.refused then return decision(state, 1, false, refusal_text(result.refused)) end
  local named = result.held or result.observed
  return decision(state, result.held and 3 or 0, repeated, named and refusal_text(named), '', result.granted)
end
