-- settle.lua - the milter is done with the message: the ticket becomes what it really was, past limits if need be.
-- ARGV: balances, how, queue id, connection, size, counter, recipients, digest...
local state = load_state()
local balances = open_balances(ARGV[1], ARGV[2], state)
local name, ticket = find_ticket(ARGV[3], ARGV[4])
local found = ticket ~= nil
if found and ticket.phase ~= OPEN then return {1, #charged_times(ticket), whole(ticket.size)} end
ticket = ticket or new_ticket()
local size, recipients, fresh = tonumber(ARGV[5]), max(1, tonumber(ARGV[7])), {}
for i = 8, #ARGV do
  if answered(ticket, ARGV[i]) == 0 then fresh[#fresh + 1] = ARGV[i] end
end
local cost = missing(ticket, recipients, size, fresh)
give_surplus_back(ticket, balances, recipients, size)
book(ticket, balances, cost)
close_ticket(name, ticket, SETTLED, ARGV[3], ARGV[6])
if not found then note_end(ARGV[4]) end
return finish(state, found and 1 or 0, #charged_times(ticket), whole(ticket.size))
