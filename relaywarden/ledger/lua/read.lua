-- read.lua - everything known of an account: {now, state, counters, refusal, scores, key, used, allowed,
-- reset after, key, ...}.
-- ARGV: balances
local state_text = redis.call('GET', base .. ':s') or ''
local state = state_text ~= '' and cjson.decode(state_text) or {}
local balances = open_balances(ARGV[1], '0', state)
local reply = {whole(now), state_text, fields['c'] or '', fields['r'] or '', redis.call('HGET', base .. ':b', 's+') or ''}
for i = 1, #balances do
  local balance = balances[i]
  local used, counter = used_of(balance), counter_of(balance)
  local reset = 0
  if balance.meter == UNIQUE then
    reset = used > 0 and balance.window + floor(balance.window / PARTS) or 0
  elseif balance.rated then
    reset = rate_wait(counter, counter.burst)
  elseif used > 0 then
    reset = ring_wait(counter, used)
  end
  reply[#reply + 1] = balance.key
  reply[#reply + 1] = whole(used)
  reply[#reply + 1] = whole(balance.allowed)
  reply[#reply + 1] = whole(reset)
end
return reply
