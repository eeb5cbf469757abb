-- suppress.lua - put recipients on the list, or take them off (an empty value).
-- ARGV: digest, packed suppression, ...
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then
    redis.call('HSET', base .. ':x', ARGV[i], ARGV[i + 1])
  else
    redis.call('HDEL', base .. ':x', ARGV[i])
  end
end
return 1
