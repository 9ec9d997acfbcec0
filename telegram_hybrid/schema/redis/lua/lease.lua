-- KEYS: value, lease. ARGV: token, lease in ms, '1' if the reader could not decode the value, '2'
-- if it found none, '0' else.
-- Returns {1 if the lease is granted, 1 if a value was discarded, ms for which another has it}.
local discarded = 0
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and (kind ~= 'string' or ARGV[3] == '1') then
  discarded = redis.call('UNLINK', KEYS[1])
elseif kind ~= 'none' and ARGV[3] == '2' then
  -- Filled since the reader looked: have it look again, not load.
  return {0, 0, 1}
end
-- A lease that expires never, or not for long, or is no token, is none of ours and would close the
-- key. (Not unlinked in vain: a full Redis refuses a SET only as a script's first write, and this
-- one must be refused then.)
local function foreign()
  local left = redis.call('PTTL', KEYS[2])
  return left == -1 or left > 10 * ARGV[2] or redis.call('STRLEN', KEYS[2]) > 64
end
kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and (kind ~= 'string' or foreign()) then
  redis.call('UNLINK', KEYS[2])
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {1, discarded, 0}
end
-- Have the holder say when it is done.
local held = redis.call('GET', KEYS[2])
if string.sub(held, -1) ~= '+' then
  redis.call('APPEND', KEYS[2], '+')
end
return {0, discarded, redis.call('PTTL', KEYS[2])}
