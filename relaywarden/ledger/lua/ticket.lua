-- ticket.lua - ticket.py in Lua: what one transaction was charged.

local function refusal_text(refusal)
  return refusal[1] .. '\t' .. whole(refusal[2]) .. '\t' .. whole(refusal[3]) .. '\t' .. whole(refusal[4])
end

local function new_ticket()
  return {phase = OPEN, flags = 0, message = 0, size = 0, sizes = {}, refusal = '', entries = ''}
end

local function load_ticket(name)
  local packed = redis.call('GET', base .. ':t:' .. name)
  if not packed then
    return new_ticket(), false
  end
  local ticket = {size = 0, sizes = {}}
  local parts, length, at
  ticket.phase, ticket.flags, ticket.message, parts, length, at = unpack_bin('<BBdBH', packed)
  for i = 1, parts do
    local size, time
    size, time, at = unpack_bin('<dd', packed, at)
    ticket.size, ticket.sizes[i] = ticket.size + size, {size, time}
  end
  ticket.refusal = sub(packed, at, at + length - 1)
  ticket.entries = sub(packed, at + length)
  return ticket, true
end

local function save_ticket(name, ticket, ttl)
  local head = pack('<BBdBH', ticket.phase, ticket.flags, ticket.message, #ticket.sizes, #ticket.refusal)
  for i = 1, #ticket.sizes do head = head .. pack('<dd', ticket.sizes[i][1], ticket.sizes[i][2]) end
  redis.call('SET', base .. ':t:' .. name, head .. ticket.refusal .. ticket.entries, 'PX', whole(ttl))
end

local function point(name, ticket_name, ttl)
  redis.call('SET', base .. ':' .. name, ticket_name, 'PX', whole(ttl))
end

local function store_ticket(name, ticket, queue_id, connection, open_ttl)
  local ttl = ticket.phase == OPEN and ticket.message > 0 and open_ttl or SETTLED_TTL
  if queue_id ~= '' and ticket.flags % 2 == 0 then
    point('q:' .. queue_id, name, ttl)
    ticket.flags = ticket.flags + 1
  end
  if connection ~= '' then point('c:' .. connection, name, ttl) end
  save_ticket(name, ticket, ttl)
end

-- time this recipient was charged, negative: refused then, 0: new
local function answered(ticket, digest)
  local at = 1
  while true do
    local found = find(ticket.entries, digest, at, true)
    if not found then return 0 end
    if (found - 1) % 16 == 0 then return (unpack_bin('<d', ticket.entries, found + 8)) end
    at = found + 1
  end
end

local function charged_times(ticket)
  local times = {}
  for at = 1, #ticket.entries, 16 do
    local charged = unpack_bin('<d', ticket.entries, at + 8)
    if charged > 0 then times[#times + 1] = charged end
  end
  return times
end

local function forget(ticket, digest)
  local kept = {}
  for at = 1, #ticket.entries, 16 do
    if sub(ticket.entries, at, at + 7) ~= digest then kept[#kept + 1] = sub(ticket.entries, at, at + 15) end
  end
  ticket.entries = table.concat(kept)
end

local function note(ticket, digest, time)
  ticket.entries = ticket.entries .. digest .. pack('<d', time)
end

-- the message's ticket, by its queue id, closed or not; else the open one of its connection; else a name for a new one
local function find_ticket(queue_id, connection)
  for _, name in ipairs({queue_id ~= '' and 'q:' .. queue_id or false, connection ~= '' and 'c:' .. connection or false}) do
    local ticket_name = name and redis.call('GET', base .. ':' .. name)
    if ticket_name then
      local ticket, found = load_ticket(ticket_name)
      if found and (ticket.phase == OPEN or sub(name, 1, 2) == 'q:') then return ticket_name, ticket end
    end
  end
  return 'q:' .. queue_id, nil
end
