-- charge.lua - RCPT: one recipient, and first the message, against every balance.
-- ARGV: balances, how, ticket, digest, claimed size, queue id, connection, dry, ticket ttl, late ms
local digest, size, dry = ARGV[4], tonumber(ARGV[5]), ARGV[8] == '1'
local state = load_state()
local ticket = load_ticket(ARGV[3])
local known = answered(ticket, digest)
local late = tonumber(ARGV[10])
if is_over(ticket, ARGV[7], late) then return decision(state, 0, true) end
local reason = late == 0 and suspension(state)
if reason then
  if not dry and known == 0 then
    read_fields({})
    note(ticket, digest, -now)
    count('refused', 1)
    store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  end
  return decision(state, 2, false, '', reason)
end
if known > 0 or ticket.phase == SETTLED or ticket.phase == REFUNDED then return decision(state, 0, true) end
if (known < 0 or ticket.phase == REFUSED) and ticket.refusal ~= '' and late == 0 then
  return decision(state, 1, true, ticket.refusal)
end
local listed = late == 0 and suppression(digest) or ''
local observes = ARGV[2] == '1'
if state.mode then observes = state.mode == 'observe' end
if listed ~= '' and not observes then
  if not dry and known == 0 then
    read_fields({})
    note(ticket, digest, -now)
    count('refused', 1)
    count_suppressed()
    store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  end
  return decision(state, 4, false, '', listed)
end
ticket.phase = OPEN -- a late charge was admitted without the store, whatever was said of it before
local cost = {
  messages = ticket.message > 0 and 0 or 1, recipients = 1, size = max(0, size - ticket.size), digests = {digest},
}
local balances = open_balances(ARGV[1], ARGV[2], state)
local result = check(balances, cost)
if dry then return found_decision(state, result, false, listed) end
if result.refused then
  note(ticket, digest, -now)
  note_refusal(ticket, result.refused)
  store_ticket(ARGV[3], ticket, '', '', ARGV[9])
else
  if known < 0 then forget(ticket, digest) end -- refused by a suspension that has ended since
  book(ticket, balances, cost, result.granted, result.held)
  store_ticket(ARGV[3], ticket, ARGV[6], cost.messages > 0 and ARGV[7] or '', ARGV[9])
end
return found_decision(state, result, false, listed)
