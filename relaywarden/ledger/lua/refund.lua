-- refund.lua - the message was not taken: give back what its ticket was charged.
-- ARGV: balances, how, queue id, connection, counter
local state = load_state()
local balances = open_balances(ARGV[1], ARGV[2], state)
local name, ticket = find_ticket(ARGV[3], ARGV[4])
local found = ticket ~= nil
if found and ticket.phase ~= OPEN then return {1, #charged_times(ticket), whole(ticket.size)} end
if not found then note_end(ARGV[4]) end
if not found and (ARGV[5] == '' or ARGV[3] == '') then return {0, 0, '0'} end
ticket = ticket or new_ticket()
give_all_back(ticket, balances)
close_ticket(name, ticket, REFUNDED, ARGV[3], ARGV[5])
return finish(state, found and 1 or 0, #charged_times(ticket), whole(ticket.size))
