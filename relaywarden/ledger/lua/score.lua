-- score.lua - scores.py in Lua: what rspamd said of one message, into today's histogram and most frequent symbols.
-- ARGV: bucket (0 to 7), score in thousandths, symbol, ...
local HEAD, BUCKETS, MOST_NAMES = '<' .. string.rep('d', 10), 8, 40
local head, names, times, place = {floor(now / 86400000), 0}, {}, {}, {}
for i = 1, BUCKETS do head[2 + i] = 0 end

local packed = redis.call('HGET', base .. ':b', 's+')
if packed and unpack_bin('<d', packed) == head[1] then
  head = {unpack_bin(HEAD, packed)}
  local at, length = table.remove(head), 0
  while at <= #packed do
    local n = #names + 1
    times[n], length, at = unpack_bin('<dH', packed, at)
    names[n] = sub(packed, at, at + length - 1)
    place[names[n]], at = n, at + length
  end
end

-- by bytes: Lua's own "<" goes by the server's locale
local function before(first, second)
  for i = 1, min(#first, #second) do
    local one, other = string.byte(first, i), string.byte(second, i)
    if one ~= other then return one < other end
  end
  return #first < #second
end

local function least()
  local found = 1
  for i = 2, #names do
    if times[i] < times[found] or times[i] == times[found] and before(names[i], names[found]) then found = i end
  end
  return found
end

local bucket = 3 + tonumber(ARGV[1])
head[2], head[bucket] = head[2] + tonumber(ARGV[2]), head[bucket] + 1
for i = 3, #ARGV do
  local name = ARGV[i]
  local n = place[name]
  if not n then
    n = #names < MOST_NAMES and #names + 1 or least()
    if names[n] then place[names[n]] = nil end
    names[n], place[name] = name, n
  end
  times[n] = (times[n] or 0) + 1
end

local parts = {pack(HEAD, unpack(head))}
for n = 1, #names do parts[n + 1] = pack('<dH', times[n], #names[n]) .. names[n] end
save_field('s+', table.concat(parts))
write_fields()
return '{}'
