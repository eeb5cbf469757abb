-- balances.lua - balances.py in Lua: all limits of an account, all or none.

-- what every limit is multiplied by: 1, or less while the tenant is slowed
local function slowed(state)
  local entry = state.slow
  if type(entry) ~= 'table' or type(entry.until_ms) == 'number' and entry.until_ms <= now then return 1 end
  return entry.factor
end

local function part(amount, factor)
  return amount == 0 and 0 or max(1, floor(amount * factor))
end

-- A balance as configured arrives as [key, meter, amount, window, burst, observe].
local function open_balances(wire, how, state)
  -- how: "0" enforce, "1" observe, "2" hold what the limits refuse, "3" late: charge in any case
  local balances = {observe = how == '1', hold = how == '2'}
  if state.mode then balances.observe = state.mode == 'observe' end
  if how == '3' then balances.observe = true end
  local factor = slowed(state)
  local overrides = type(state.limits) == 'table' and state.limits or {}
  for i, row in ipairs(cjson.decode(wire)) do
    local burst = row[5] > 0 and row[5] or nil
    balances[i] = {
      key = row[1], meter = row[2], amount = row[3], window = row[4], rated = burst ~= nil,
      -- set by hand for this balance, or for the limit of all logins, domains or clients ("KEY=VALUE")
      allowed = overrides[row[1]] or overrides[string.match(row[1], '^[^=]*')] or burst or row[3], observe = row[6] == 1,
    }
    if factor ~= 1 then
      local balance = balances[i]
      balance.allowed, balance.amount, balance.slowed = part(balance.allowed, factor), part(balance.amount, factor), true
    end
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
  -- while the tenant is slowed, what is too much now may fit again later
  if amount > balance.allowed then wait = balance.slowed and balance.window or -1 end
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
