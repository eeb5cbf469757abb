-- reconcile.lua - DATA, END-OF-MESSAGE: bring the ticket to the true number of recipients and the size.
-- ARGV: balances, observe, ticket, recipients, size, queue id, connection, dry, ticket ttl
local size, dry = tonumber(ARGV[5]), ARGV[8] == '1'
local state = load_state()
local ticket = load_ticket(ARGV[3])
if ticket.phase == REFUSED and ticket.refusal ~= '' then return decision(1, true, ticket.refusal) end
if ticket.phase == SETTLED or ticket.phase == REFUNDED then return decision(0, true) end
local balances = open_balances(ARGV[1], ARGV[2], state)
local reason = suspension(state)
if reason then
  if not dry then
    give_all_back(ticket, balances)
    count('refused', 1)
    ticket.phase = REFUNDED
    store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  end
  return decision(2, false, '', reason)
end
local recipients = tonumber(ARGV[4])
if recipients == 0 then recipients = #charged_times(ticket) end
local cost = missing(ticket, recipients, size, {})
local refused, observed = check(balances, cost)
if dry then
  if refused then return {1, 0, refusal_text(refused), ''} end
  return {0, 0, observed and refusal_text(observed) or '', ''}
end
if refused then
  give_all_back(ticket, balances)
  ticket.phase, ticket.refusal = REFUSED, refusal_text(refused)
  count('refused', 1)
  store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  return decision(1, false, ticket.refusal)
end
local messages = ticket.message
give_surplus_back(ticket, balances, recipients, size)
local booked = book(ticket, balances, cost)
store_ticket(ARGV[3], ticket, ARGV[6], cost.messages > 0 and ARGV[7] or '', ARGV[9])
return decision(0, messages > 0 and not booked, observed and refusal_text(observed))
