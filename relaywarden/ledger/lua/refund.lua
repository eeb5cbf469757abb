-- refund.lua - the message was not taken: give back what its ticket was charged.
-- ARGV: balances, observe, queue id, connection, counter
local state = load_state()
local balances = open_balances(ARGV[1], ARGV[2], state)
if ARGV[5] ~= '' then count(ARGV[5], 1) end
local name, ticket = find_open_ticket(ARGV[3], ARGV[4])
if not ticket then return finish(0, 0, '0') end
give_all_back(ticket, balances)
ticket.phase = REFUNDED
save_ticket(name, ticket, SETTLED_TTL)
return finish(1, #charged_times(ticket), whole(ticket.size))
