-- state.lua - grants.py in Lua, and the dynamic state that grants are a part of.

local function load_state()
  local text = redis.call('GET', base .. ':s')
  return text and cjson.decode(text) or {}
end

local function suspension(state)
  local entry = state.suspended
  if not entry or entry == cjson.null then return nil end
  if type(entry.until_ms) == 'number' and entry.until_ms <= now then return nil end
  return type(entry.reason) == 'string' and entry.reason or ''
end

local function save_state(state)
  if next(state) == nil then
    redis.call('DEL', base .. ':s')
    return '{}'
  end
  local text = cjson.encode(state)
  redis.call('SET', base .. ':s', text) -- no expiry: a human's word holds until a human takes it back
  return text
end

-- grants: {id: {meter, amount, used, until_ms, ...}}; half a millisecond in a ticket's time of charge marks what went there
local GRANTED = 0.5
local METER_NAMES = {[MESSAGES] = 'messages', [RECIPIENTS] = 'recipients', [BYTES] = 'bytes', [UNIQUE] = 'unique_recipients'}
local grants, grant_names, drawn = {}, {}, false

local function open_grants(state)
  if type(state.grants) ~= 'table' then return end
  grants = state.grants
  for name in pairs(grants) do grant_names[#grant_names + 1] = name end
  table.sort(grant_names)
end

local function grant_with_room(meter, amount)
  for _, name in ipairs(grant_names) do
    local grant = grants[name]
    local alive = type(grant.until_ms) ~= 'number' or grant.until_ms > now
    if alive and grant.meter == METER_NAMES[meter] and (grant.used or 0) + amount <= grant.amount then return grant end
  end
end

local function grant_draw(meter, amount)
  local grant = grant_with_room(meter, amount)
  if grant then grant.used, drawn = (grant.used or 0) + amount, true end
end

local function grant_give_back(meter, amount)
  for _, name in ipairs(grant_names) do
    local grant = grants[name]
    if grant.meter == METER_NAMES[meter] and (grant.used or 0) >= amount then
      grant.used, drawn = grant.used - amount, true
      return
    end
  end
end

local function by_grant(time)
  return time % 1 == GRANTED
end
