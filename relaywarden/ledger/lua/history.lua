-- history.lua - the records of hours: {hour, fields, name, amount, ..., hour, ...}; an hour without a record is left out.
-- ARGV: first hour, last hour
local reply = {}
for hour = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local record = redis.call('HGETALL', base .. ':h:' .. string.format('%.0f', hour))
  if #record > 0 then
    reply[#reply + 1] = string.format('%.0f', hour)
    reply[#reply + 1] = #record / 2
    for i = 1, #record do reply[#reply + 1] = record[i] end
  end
end
return reply
