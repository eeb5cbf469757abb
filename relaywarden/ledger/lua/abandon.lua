-- abandon.lua - the client gave the transaction up: give back what it was charged; should it go on after all, it is charged
-- again.
-- ARGV: balances, how, ticket
local state = load_state()
local ticket, found = load_ticket(ARGV[3])
if found and ticket.phase == OPEN and ticket.message > 0 then
  local balances = open_balances(ARGV[1], ARGV[2], state)
  give_all_back(ticket, balances)
  save_ticket(ARGV[3], ticket, SETTLED_TTL)
end
finish(state)
return cjson.encode(state)
