-- settle.lua - the milter is done with the message: the ticket becomes what it really was, past limits if need be.
-- ARGV: balances, observe, queue id, connection, size, counter, recipients, digest...
local state = load_state()
local balances = open_balances(ARGV[1], ARGV[2], state)
local name, ticket = find_open_ticket(ARGV[3], ARGV[4])
local found = ticket ~= nil
if not found then
  ticket = {phase = OPEN, indexed = 0, message = 0, size = 0, size_at = 0, refusal = '', entries = ''}
end
local size, recipients, fresh = tonumber(ARGV[5]), max(1, tonumber(ARGV[7])), {}
for i = 8, #ARGV do
  if answered(ticket, ARGV[i]) == 0 then fresh[#fresh + 1] = ARGV[i] end
end
local cost = missing(ticket, recipients, size, fresh)
give_surplus_back(ticket, balances, recipients, size)
book(ticket, balances, cost)
if ARGV[6] ~= '' then count(ARGV[6], 1) end
ticket.phase = SETTLED
save_ticket(name, ticket, SETTLED_TTL)
if not found then point('q:' .. ARGV[3], name, SETTLED_TTL) end
return finish(found and 1 or 0, #charged_times(ticket), whole(ticket.size))
