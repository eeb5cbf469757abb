-- reconcile.lua - DATA, END-OF-MESSAGE: bring the ticket to the true number of recipients and the size.
-- ARGV: balances, how, ticket, recipients, size, queue id, connection, dry, ticket ttl, late ms
local size, dry = tonumber(ARGV[5]), ARGV[8] == '1'
local state = load_state()
local ticket = load_ticket(ARGV[3])
if ticket.phase == REFUSED and ticket.refusal ~= '' and ARGV[10] == '0' then
  return decision(state, 1, true, ticket.refusal)
end
if ticket.phase == SETTLED or ticket.phase == REFUNDED then return decision(state, 0, true) end
local late = tonumber(ARGV[10])
if is_over(ticket, ARGV[7], late) then return decision(state, 0, true) end
local balances = open_balances(ARGV[1], ARGV[2], state)
local reason = late == 0 and suspension(state)
if reason then
  if not dry then
    give_all_back(ticket, balances)
    count('refused', 1)
    ticket.phase = REFUNDED
    store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  end
  return decision(state, 2, false, '', reason)
end
ticket.phase = OPEN -- see charge.lua
local recipients = tonumber(ARGV[4])
if recipients == 0 then recipients = #charged_times(ticket) end
local cost = missing(ticket, recipients, size, {})
local result = check(balances, cost)
if dry then return found_decision(state, result) end
if result.refused then
  give_all_back(ticket, balances)
  ticket.phase = REFUSED
  note_refusal(ticket, result.refused)
  store_ticket(ARGV[3], ticket, '', '', ARGV[9])
  return found_decision(state, result)
end
local charged_before = ticket.message > 0
give_surplus_back(ticket, balances, recipients, size)
local booked = book(ticket, balances, cost, result.granted, result.held)
store_ticket(ARGV[3], ticket, ARGV[6], cost.messages > 0 and ARGV[7] or '', ARGV[9])
return found_decision(state, result, charged_before and not booked)
