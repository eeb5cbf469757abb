-- steer.lua - merging.py in Lua: merge a change into the dynamic state; null removes a key, those in BY_ENTRY change entry by
-- entry.  A change by somebody leaves alone what somebody else said and still holds; replies the state, JSON.
-- ARGV: change, JSON; by whom (empty: whatever stands there is changed)
local BY_ENTRY = {limits = true, grants = true, faults = true, tenants = true, selectors = true, members = true}
local NULL, by = cjson.null, ARGV[2]

local function map(found)
  return type(found) == 'table' and found or {}
end

local function put(entries, name, entry)
  if entry == NULL then entries[name] = nil else entries[name] = entry end
end

local function or_null(entries)
  return next(entries) and entries or NULL
end

local function is_taken(found)
  if by == '' or type(found) ~= 'table' then return false end
  if found.by == nil or found.by == NULL or found.by == by then return false end
  return type(found.until_ms) ~= 'number' or found.until_ms > now
end

-- a change that removes all that there is
local function removal(entries)
  local change = {}
  for name in pairs(entries) do change[name] = NULL end
  return change
end

local function merge_member(present, change)
  if change == NULL then
    change = removal(present)
    change.paused = NULL
  end
  local pauses, wanted = map(present.paused), change.paused
  for name, part in pairs(change) do
    if name ~= 'paused' then put(present, name, part) end
  end
  if wanted == nil then return or_null(present) end
  for name, pause in pairs(wanted == NULL and removal(pauses) or map(wanted)) do
    if not is_taken(pauses[name]) then put(pauses, name, pause) end
  end
  put(present, 'paused', or_null(pauses))
  return or_null(present)
end

local function merge_entries(key, present, change)
  for name, entry in pairs(change == NULL and removal(present) or change) do
    if not is_taken(present[name]) then
      local merges = by ~= '' and key == 'members' and (entry == NULL or type(entry) == 'table')
      put(present, name, merges and merge_member(map(present[name]), entry) or entry)
    end
  end
  return or_null(present)
end

local state, change, taken = load_state(), cjson.decode(ARGV[1]), false
for key in pairs(change) do taken = taken or not BY_ENTRY[key] and is_taken(state[key]) end
for key, value in pairs(change) do
  if not BY_ENTRY[key] then
    if not taken then put(state, key, value) end
  elseif type(value) == 'table' or by ~= '' and value == NULL then
    put(state, key, merge_entries(key, map(state[key]), value))
  else
    put(state, key, value)
  end
end
return save_state(state)
