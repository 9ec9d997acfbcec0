-- KEYS: value, lease, tombstone. ARGV: token, as_of, value ('' only gives the lease back), value's
-- life in ms, topic. Returns 1 if filled, 0 if refused.
local held = redis.pcall('GET', KEYS[2])
if held ~= ARGV[1] and held ~= ARGV[1] .. '+' then
  -- Who waited for a lease that was evicted or flushed is told by nobody else.
  redis.call('PUBLISH', ARGV[5], KEYS[1])
  return 0
end
local function older(a, b)
  return #a < #b or (#a == #b and a < b)
end
local tombstone = redis.pcall('GET', KEYS[3])
if type(tombstone) ~= 'string' or #tombstone > 19 or not string.match(tombstone, '^%d+$') then
  tombstone = '0'
end
local refused = ARGV[3] == '' or older(ARGV[2], tombstone)
-- A full Redis refuses a SET that is a script's first write: then the lease goes all the same.
local failure
if not refused then
  local reply = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  failure = reply.err and reply
end
redis.call('UNLINK', KEYS[2])
if held ~= ARGV[1] then
  redis.call('PUBLISH', ARGV[5], KEYS[1])
end
return failure or (refused and 0 or 1)
