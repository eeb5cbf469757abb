-- take.lua - as many messages as every limit admits, up to an amount; no ticket, no grants, no modes: {taken, wait}.
-- wait: 0 if all was taken, else milliseconds until one more may fit; -1: never
-- ARGV: balances, amount
local wanted = tonumber(ARGV[2])
local balances = open_balances(ARGV[1], '0', load_state())

-- the most tokens that rate_wait lets take now; it decides, since the division may be off by a hair
local function rate_room(rate)
  local guess = floor((now + rate.burst * rate.interval - rate.arrival) / rate.interval)
  for tokens = guess + 1, guess, -1 do
    if rate_wait(rate, tokens) == 0 then return min(rate.burst, tokens) end
  end
  return guess - 1
end

local taken = wanted
for i = 1, #balances do
  if balances[i].meter == MESSAGES then
    local counter = counter_of(balances[i])
    local room = floor(balances[i].rated and rate_room(counter) or balances[i].allowed - counter.total)
    taken = max(0, min(taken, room))
  end
end
if taken > 0 then
  charge_balances(balances, {messages = taken, recipients = 0, size = 0, digests = {}}, {})
  count('messages', taken)
  write_counters()
  write_fields()
end
if taken == wanted then return {taken, 0} end
local wait, one = 1, {messages = 1, recipients = 0, size = 0, digests = {}}
for i = 1, #balances do
  local refusal = check_one(balances[i], one)
  if refusal then wait = (wait < 0 or refusal[4] < 0) and -1 or max(wait, refusal[4]) end
end
return {taken, wait}
