-- unique.lua - unique.py in Lua: the sliding HyperLogLog.

local REGISTERS, PER_GROUP = 2048, 16

local function sketch_estimate(harmonic, empty)
  local raw = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS * REGISTERS / harmonic
  if raw <= 2.5 * REGISTERS and empty > 0 then raw = REGISTERS * math.log(REGISTERS / empty) end
  return floor(raw + 0.5)
end

local function sketch_move(sketch, slot)
  local back = sketch.last > slot
  sketch.last, sketch.harmonic, sketch.empty = slot, REGISTERS, REGISTERS
  local all = redis.call('HGETALL', sketch.key)
  for i = 1, #all, 2 do
    if all[i] ~= 'z' then
      local packed, kept, best = all[i + 1], {}, {}
      for at = 1, #packed, 4 do
        local register, rank, stamp = unpack_bin('<BBH', packed, at)
        if back or (slot - stamp) % 65536 < SLOTS then
          kept[#kept + 1] = pack('<BBH', register, rank, back and slot % 65536 or stamp)
          best[register] = max(rank, best[register] or 0)
        end
      end
      local value = table.concat(kept)
      if value ~= packed then sketch.changed[all[i]] = value end
      for register = 0, PER_GROUP - 1 do
        if best[register] then
          sketch.harmonic = sketch.harmonic + (2 ^ -best[register] - 1)
          sketch.empty = sketch.empty - 1
        end
      end
    end
  end
end

local function sketch_open(name, window)
  local slot = floor(now * PARTS / window)
  local sketch = {key = base .. ':u:' .. name, name = name, window = window, changed = {}}
  local head = redis.call('HGET', sketch.key, 'z')
  if not head then
    sketch.last, sketch.harmonic, sketch.empty = slot, REGISTERS, REGISTERS
    return sketch
  end
  sketch.last, sketch.harmonic, sketch.empty = unpack_bin('<ddd', head)
  if slot > sketch.last or sketch.last - slot >= SLOTS then sketch_move(sketch, slot) end
  return sketch
end

local function sketch_add(sketch, digest)
  local low, high = unpack_bin('<I4I4', digest)
  local register = low % REGISTERS
  local rest = high * 2097152 + floor(low / REGISTERS)
  local _, bits = math.frexp(rest)
  local rank = 54 - (rest == 0 and 0 or bits)
  local group = whole(floor(register / PER_GROUP))
  register = register % PER_GROUP
  local packed = sketch.changed[group] or redis.call('HGET', sketch.key, group) or ''
  local kept, best = {}, 0
  for at = 1, #packed, 4 do
    local other, other_rank = unpack_bin('<BB', packed, at)
    if other == register then best = max(best, other_rank) end
    if other ~= register or other_rank > rank then kept[#kept + 1] = sub(packed, at, at + 3) end
  end
  kept[#kept + 1] = pack('<BBH', register, rank, sketch.last % 65536)
  sketch.changed[group] = table.concat(kept)
  if rank > best then
    sketch.harmonic = sketch.harmonic + (2 ^ -rank - 2 ^ -best)
    if best == 0 then sketch.empty = sketch.empty - 1 end
  end
end

local function sketch_commit(sketch)
  for field, value in pairs(sketch.changed) do
    if value == '' then redis.call('HDEL', sketch.key, field) else redis.call('HSET', sketch.key, field, value) end
  end
  redis.call('HSET', sketch.key, 'z', pack('<ddd', sketch.last, sketch.harmonic, sketch.empty))
  redis.call('PEXPIRE', sketch.key, whole(sketch.window + sketch.window / 30))
  if not fields['u:' .. sketch.name] then save_field('u:' .. sketch.name, '1') end -- so that reset.lua finds it
end
