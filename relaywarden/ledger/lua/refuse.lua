-- refuse.lua - policyd refused by a rule of its own: count it once; without a recipient give the whole message back.
-- ARGV: balances, how, ticket, digest or 8 zeros, ticket ttl
local state = load_state()
local ticket = load_ticket(ARGV[3])
if ticket.phase == OPEN and answered(ticket, ARGV[4]) == 0 then
  local balances = open_balances(ARGV[1], ARGV[2], state)
  note(ticket, ARGV[4], -now)
  if ARGV[4] == ANONYMOUS then
    give_all_back(ticket, balances)
    ticket.phase = REFUNDED
  end
  count('refused', 1)
  store_ticket(ARGV[3], ticket, '', '', ARGV[5])
end
finish(state)
return cjson.encode(state)
