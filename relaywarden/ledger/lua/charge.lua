-- charge.lua - RCPT: one recipient, and first the message, against every balance.
-- ARGV: balances, observe, ticket, digest, claimed size, queue id, connection, dry, ticket ttl
local digest, size, dry = ARGV[4], tonumber(ARGV[5]), ARGV[8] == '1'
local state = load_state()
local ticket = load_ticket(ARGV[3])
local known = answered(ticket, digest)
local reason = suspension(state)
if reason then
  if not dry and known == 0 then
    read_fields({})
    note(ticket, digest, -now)
    count('refused', 1)
    store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  end
  return decision(2, false, '', reason)
end
if known > 0 or ticket.phase == SETTLED or ticket.phase == REFUNDED then return decision(0, true) end
if (known < 0 or ticket.phase == REFUSED) and ticket.refusal ~= '' then return decision(1, true, ticket.refusal) end
local cost = {
  messages = ticket.message > 0 and 0 or 1, recipients = 1, size = max(0, size - ticket.size), digests = {digest},
}
local balances = open_balances(ARGV[1], ARGV[2], state)
local refused, observed = check(balances, cost)
if dry then
  if refused then return {1, 0, refusal_text(refused), ''} end
  return {0, 0, observed and refusal_text(observed) or '', ''}
end
if refused then
  ticket.refusal = refusal_text(refused)
  note(ticket, digest, -now)
  count('refused', 1)
  store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  return decision(1, false, ticket.refusal)
end
book(ticket, balances, cost)
store_ticket(ARGV[3], ticket, ARGV[6], cost.messages > 0 and ARGV[7] or '', ARGV[9])
return decision(0, false, observed and refusal_text(observed))
