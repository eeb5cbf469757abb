-- charge_fast.lua - the common charge in straight-line code: no dynamic state, a new or open ticket, and every balance a
-- rolling window that was used before and has room.  It stands before books.lua in the verb `charge`
-- and returns before any function of books.lua is made (making them is most of what a charge costs), or falls through to
-- charge.lua having changed nothing.  It says exactly what charge.lua says; the contract suite holds both to one oracle.
-- ARGV: as in charge.lua
do
  local call, pack, unpack_bin, sub, floor = redis.call, struct.pack, struct.unpack, string.sub, math.floor
  local base, argv = KEYS[1], ARGV

  local function fast()
    if argv[8] ~= '0' or argv[10] ~= '0' then return nil end
    local ticket_key = base .. ':t:' .. argv[3]
    local found = call('MGET', base .. ':s', ticket_key)
    if found[1] then return nil end
    local digest, claim = argv[4], tonumber(argv[5])
    if call('HEXISTS', base .. ':x', digest) == 1 then return nil end
    local flags, message, sizes, entries = 0, 0, '', ''
    if found[2] then
      local phase, parts, length, at
      phase, flags, message, parts, length, at = unpack_bin('<BBdBH', found[2])
      if phase ~= 0 or length ~= 0 or parts > 1 then return nil end
      if parts == 1 then
        if claim > unpack_bin('<d', found[2], at) then return nil end
        sizes, claim, at = sub(found[2], at, at + 15), 0, at + 16
      end
      entries = sub(found[2], at)
      if string.find(entries, digest, 1, true) then return nil end
    end
    local first = message > 0 and 0 or 1
    local amounts = {[0] = first, 1, claim} -- messages, recipients, bytes

    local rows, names = cjson.decode(argv[1]), {'c'}
    for i = 1, #rows do
      if rows[i][2] == 3 or rows[i][5] ~= 0 then return nil end
      names[i + 1] = rows[i][1]
    end
    local values = call('HMGET', base .. ':b', unpack(names))
    local clock = call('TIME')
    local now = tonumber(clock[1]) * 1000 + floor(tonumber(clock[2]) / 1000)

    -- In a new hour the slow path also renews the expiry of the balances.
    local counters = values[1]
    if not counters then return nil end
    local hour, day, hour_messages, hour_recipients, hour_bytes = unpack_bin('<ddddd', counters)
    if hour ~= floor(now / 3600000) or day ~= floor(now / 86400000) then return nil end

    local out, n = {}, 0
    for i = 1, #rows do
      local row = rows[i]
      local amount = amounts[row[2]]
      if amount > 0 then
        local ring = values[i + 1]
        if not ring then return nil end
        local last, total, current = unpack_bin('<ddd', ring)
        local slot = floor(now * 60 / row[4])
        if slot < last then return nil end
        if slot > last then
          local tail = total ~= 0 and slot - last < 61 and call('HGET', base .. ':b', row[1] .. '+')
          if tail == '' then tail = false end
          if total ~= 0 and slot - last < 61 then
            tail = tail or string.rep('\0', 488)
            local at = last % 61 * 8 + 1
            tail = sub(tail, 1, at - 1) .. pack('<d', current) .. sub(tail, at + 8)
            for number = last + 1, slot do
              at = number % 61 * 8 + 1
              local expired = unpack_bin('<d', tail, at)
              if expired ~= 0 then
                total, tail = total - expired, sub(tail, 1, at - 1) .. '\0\0\0\0\0\0\0\0' .. sub(tail, at + 8)
              end
            end
            out[n + 1], out[n + 2], n = row[1] .. '+', tail, n + 2
          elseif total ~= 0 then
            total = 0
            out[n + 1], out[n + 2], n = row[1] .. '+', '', n + 2
          end
          last, current = slot, 0
        end
        if total + amount > row[3] then return nil end
        out[n + 1], out[n + 2], n = row[1], pack('<ddd', last, total + amount, current + amount), n + 2
      end
    end

    -- Everything admits: from here on it is written.
    local day_messages, day_recipients, day_bytes = unpack_bin('<ddd', counters, 97)
    out[n + 1] = 'c'
    out[n + 2] = pack('<ddddd', hour, day, hour_messages + first, hour_recipients + 1, hour_bytes + claim)
      .. sub(counters, 41, 96) .. pack('<ddd', day_messages + first, day_recipients + 1, day_bytes + claim)
      .. sub(counters, 121)
    call('HSET', base .. ':b', unpack(out))
    if argv[6] ~= '' and flags % 2 == 0 then
      call('SET', base .. ':q:' .. argv[6], argv[3], 'PX', argv[9])
      flags = flags + 1
    end
    if argv[7] ~= '' and first > 0 then call('SET', base .. ':c:' .. argv[7], argv[3], 'PX', argv[9]) end
    if claim > 0 then sizes = pack('<dd', claim, now) end
    call('SET', ticket_key, pack('<BBdBH', 0, flags, first > 0 and now or message, #sizes / 16, 0)
      .. sizes .. entries .. digest .. pack('<d', now), 'PX', argv[9])
    return {0, 0, '', '', 0}
  end

  local reply = fast()
  if reply then return reply end
end

