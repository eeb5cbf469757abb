-- tally.lua - add to this hour's and today's counters.
-- ARGV: name, amount, ...
read_fields({})
for i = 1, #ARGV, 2 do count(ARGV[i], tonumber(ARGV[i + 1])) end
write_counters()
write_fields()
return '{}'
