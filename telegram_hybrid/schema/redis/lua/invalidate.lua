-- KEYS: the window's place aside, tombstone, generation, the window and each stale value, then the
-- lease of each of these, then the flags of messages that are seen now. ARGV: topic, version,
-- tombstone's life in ms, version before or '', capacity of the window, how many values are stale,
-- the flags' life in ms and what they say, then for each stale value the version below which it
-- goes, then the patch: id and JSON of each changed message, ids ascending, '' for a deleted one.
-- What frees memory comes before what takes it, so that a full Redis lets it pass; but for the
-- flags, which it is to refuse: it does only as long as the script has not written anything.
local topic, version, life, previous = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local capacity, values = tonumber(ARGV[5]), tonumber(ARGV[6])
-- As many as unpack surely takes.
local most = 4000

for i = 6 + 2 * values, #KEYS do
  redis.pcall('SET', KEYS[i], ARGV[8], 'PX', ARGV[7])
end

local function older(a, b)
  return #a < #b or (#a == #b and a < b)
end

local function version_of(value)
  return value and string.match(value, '^{"version":(%d+)')
end

-- Values that go, and the lease of each; at last, behind them, what has no lease.
local stale, leases = {}, {}
local function forget(at)
  stale[#stale + 1] = KEYS[at]
  leases[#leases + 1] = KEYS[at + values + 1]
end

-- A value that is new enough, and the lease beside it, were made after the commit. Mostly there is
-- none: it was marked.
for from = 5, 4 + values, most do
  local to = math.min(from + most - 1, 4 + values)
  local some = redis.call('EXISTS', unpack(KEYS, from, to)) > 0
  for at = from, to do
    local head = some and redis.pcall('GETRANGE', KEYS[at], 0, 40)
    local has = type(head) == 'string' and version_of(head)
    if not has or older(has, ARGV[4 + at]) then
      forget(at)
    end
  end
end

-- The messages of a window, one a line, newest first, merged with the patch.
local function patched(window)
  local from, cost, lo, hi, complete, body = string.match(window,
    '^{"version":%d+,"schema":1,"until":([%d.]+),"cost":([%d.]+),"lo":(%d+),"hi":(%d+),' ..
    '"complete":(%a+),"messages":%[(.*)%]}$')
  if not from then
    return nil
  end
  local lines = {}
  local at = #ARGV - 1
  local first = 9 + values
  local function add(id, line)
    if line ~= '' and (complete == 'true' or not older(id, lo)) then
      lines[#lines + 1] = line
    end
  end
  for line in string.gmatch(body, '[^\n]+') do
    line = string.gsub(line, ',$', '')
    local id = string.match(line, '"message_id":(%d+)')
    if not id then
      return nil
    end
    while at >= first and older(id, ARGV[at]) do
      add(ARGV[at], ARGV[at + 1])
      at = at - 2
    end
    if at >= first and ARGV[at] == id then
      line = ARGV[at + 1]
      at = at - 2
    end
    add(id, line)
  end
  while at >= first do
    add(ARGV[at], ARGV[at + 1])
    at = at - 2
  end
  if #lines > capacity then
    for i = #lines, capacity + 1, -1 do
      lines[i] = nil
    end
    complete = 'false'
  end
  if #lines > 0 then
    hi = string.match(lines[1], '"message_id":(%d+)')
    if complete == 'true' or #lines == capacity then
      lo = string.match(lines[#lines], '"message_id":(%d+)')
    end
  end
  return '{"version":' .. version .. ',"schema":1,"until":' .. from .. ',"cost":' .. cost ..
    ',"lo":' .. lo .. ',"hi":' .. hi .. ',"complete":' .. complete .. ',"messages":[\n' ..
    table.concat(lines, ',\n') .. '\n]}'
end

-- Of another type they are nothing.
local held, tombstone, window = unpack(redis.call('MGET', KEYS[1], KEYS[2], KEYS[4]))
local known = version_of(window) or version_of(held)
local fresh, left
-- Otherwise the window has this commit already; aside, it waits for the writer that put it there.
if not known or older(known, version) then
  if previous ~= '' and known == previous then
    left = redis.call('PTTL', window and KEYS[4] or KEYS[1])
    fresh = left > 0 and patched(window or held)
  end
  forget(4)
  stale[#stale + 1] = KEYS[1]
end
stale[#stale + 1] = KEYS[3]

for from = 1, #leases, most do
  local to = math.min(from + most - 1, #leases)
  for i, holder in ipairs(redis.call('MGET', unpack(leases, from, to))) do
    if holder and string.sub(holder, -1) == '+' then
      redis.call('PUBLISH', topic, stale[from + i - 1])
    end
  end
  redis.call('UNLINK', unpack(leases, from, to))
end
for from = 1, #stale, most do
  redis.call('UNLINK', unpack(stale, from, math.min(from + most - 1, #stale)))
end
if fresh then
  -- A full Redis has no window, then.
  redis.pcall('SET', KEYS[4], fresh, 'PX', left)
end

if not tombstone or #tombstone > 19 or not string.match(tombstone, '^%d+$')
    or older(tombstone, version) then
  tombstone = version
end
redis.call('SET', KEYS[2], tombstone, 'PX', life)
return 1
