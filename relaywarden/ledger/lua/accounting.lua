-- accounting.lua - accounting.py in Lua: what the verbs share.

local MOST_PARTS = 255

local function add_size(ticket, size, time)
  ticket.size = ticket.size + size
  if #ticket.sizes == MOST_PARTS then size = size + table.remove(ticket.sizes)[1] end
  ticket.sizes[#ticket.sizes + 1] = {size, time}
end

-- bytes off again, the latest first, as entries to be given back
local function take_size(ticket, surplus, entries)
  while surplus > 0 and #ticket.sizes > 0 do
    local last = ticket.sizes[#ticket.sizes]
    local part = min(surplus, last[1])
    if part < last[1] then last[1] = last[1] - part else table.remove(ticket.sizes) end
    entries[#entries + 1] = {BYTES, part, last[2]}
    ticket.size, surplus = ticket.size - part, surplus - part
  end
end

local function book(ticket, balances, cost, granted, held)
  granted = granted or {}
  if held and ticket.flags < 2 then
    ticket.flags = ticket.flags + 2
    count('held', 1)
  end
  if cost.messages == 0 and cost.recipients == 0 and cost.size == 0 and #cost.digests == 0 then return false end
  charge_balances(balances, cost, granted)
  count('messages', cost.messages)
  count('recipients', cost.recipients)
  count('bytes', cost.size)
  local function charged_at(meter) return granted[meter] and now + GRANTED or now end
  if cost.messages > 0 then ticket.message = charged_at(MESSAGES) end
  if cost.size > 0 then add_size(ticket, cost.size, charged_at(BYTES)) end
  for i = 1, cost.recipients do note(ticket, cost.digests[i] or ANONYMOUS, charged_at(RECIPIENTS)) end
  return true
end

local function give_all_back(ticket, balances)
  local entries, kept = {}, {}
  for at = 1, #ticket.entries, 16 do
    local charged = unpack_bin('<d', ticket.entries, at + 8)
    if charged > 0 then
      entries[#entries + 1] = {RECIPIENTS, 1, charged}
    else
      kept[#kept + 1] = sub(ticket.entries, at, at + 15)
    end
  end
  entries[#entries + 1] = {MESSAGES, ticket.message > 0 and 1 or 0, ticket.message}
  take_size(ticket, ticket.size, entries)
  ticket.entries = table.concat(kept)
  ticket.message = 0
  give_back(balances, entries)
end

-- Recipients that Postfix refused after we admitted them (the oldest, so that what stays expires late rather than early)
-- and bytes that were claimed but not sent.
local function give_surplus_back(ticket, balances, recipients, size)
  local surplus = max(0, #charged_times(ticket) - recipients)
  local entries, kept = {}, {}
  if surplus > 0 then
    for at = 1, #ticket.entries, 16 do
      local charged = unpack_bin('<d', ticket.entries, at + 8)
      if charged > 0 and surplus > 0 then
        surplus = surplus - 1
        entries[#entries + 1] = {RECIPIENTS, 1, charged}
      else
        kept[#kept + 1] = sub(ticket.entries, at, at + 15)
      end
    end
    ticket.entries = table.concat(kept)
  end
  if size > 0 and size < ticket.size then take_size(ticket, ticket.size - size, entries) end
  if #entries > 0 then give_back(balances, entries) end
end

local function missing(ticket, recipients, size, digests)
  return {
    messages = ticket.message > 0 and 0 or 1,
    recipients = max(0, recipients - #charged_times(ticket)),
    size = max(0, size - ticket.size),
    digests = digests,
  }
end

local function note_refusal(ticket, refusal)
  ticket.refusal = refusal_text(refusal)
  save_field('r', whole(now) .. '\t' .. ticket.refusal)
  count('refused', 1)
end

-- A message of this connection ended whose ticket is not here, or not yet.
local function note_end(connection)
  if connection ~= '' then redis.call('SET', base .. ':e:' .. connection, whole(now), 'PX', SETTLED_TTL) end
end

-- Whether a late charge comes after the milter's last word, which found no ticket and counted the message by itself.
-- Messages of one connection follow each other: if one of it ended after this was admitted, this one has.
local function is_over(ticket, connection, late)
  if late == 0 or ticket.message > 0 or connection == '' then return false end
  local ended = redis.call('GET', base .. ':e:' .. connection)
  return ended and tonumber(ended) >= now - late
end

-- The end of a ticket; its queue id finds it from now on, so that the same word again changes nothing.
local function close_ticket(name, ticket, phase, queue_id, counter)
  if counter ~= '' then count(counter, 1) end
  ticket.phase = phase
  save_ticket(name, ticket, SETTLED_TTL)
  if queue_id ~= '' then point('q:' .. queue_id, name, SETTLED_TTL) end
end

local function finish(state, ...)
  write_counters()
  write_fields()
  if drawn then save_state(state) end
  return {...}
end

-- The entry of the suppression list that forbids this recipient now; empty: none.  One that has expired goes, so that
-- the next charge of this recipient takes the fast path again.
local function suppression(digest)
  local value = redis.call('HGET', base .. ':x', digest)
  if not value then return '' end
  if tonumber(string.match(value, '^%-?%d+')) > now then return value end
  redis.call('HDEL', base .. ':x', digest)
  redis.call('ZREM', base .. ':y', digest)
  return ''
end

local function count_suppressed()
  local hour = floor(now / 3600000)
  local record = base .. ':h:' .. whole(hour)
  redis.call('HINCRBY', record, 'suppressed', 1)
  keep_until(record, (hour + 1) * 3600000 + HISTORY)
end

-- The decision as it goes back: {0 admitted | 1 refused | 2 suspended | 3 held | 4 suppressed, repeated, refusal, reason, granted}.
local function decision(state, code, repeated, refusal, reason, granted)
  return finish(state, code, repeated and 1 or 0, refusal or '', reason or '', granted and next(granted) and 1 or 0)
end

local function found_decision(state, result, repeated, reason)
  if result.refused then return decision(state, 1, false, refusal_text(result.refused), reason) end
  local named = result.held or result.observed
  return decision(state, result.held and 3 or 0, repeated, named and refusal_text(named), reason, result.granted)
end
