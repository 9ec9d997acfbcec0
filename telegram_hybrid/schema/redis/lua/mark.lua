-- KEYS: window, its lease, its place aside, generation, then each stale value and its lease.
-- ARGV: topic, the channel's version before the write or ''. Takes no memory, so that a full Redis
-- lets it pass.
local topic, previous = ARGV[1], ARGV[2]
local function fits(key)
  local head = redis.pcall('GETRANGE', key, 0, 40)
  return type(head) == 'string' and string.match(head, '^{"version":(%d+)') == previous
end
local function forget(value, lease)
  local holder = redis.pcall('GET', lease)
  redis.call('UNLINK', value, lease)
  if type(holder) == 'string' and string.sub(holder, -1) == '+' then
    redis.call('PUBLISH', topic, value)
  end
end
-- Aside is only what this write's own invalidation can patch: an earlier write's that comes late
-- must not bring a window back before this commit.
if fits(KEYS[1]) then
  redis.call('RENAME', KEYS[1], KEYS[3])
elseif not fits(KEYS[3]) then
  redis.call('UNLINK', KEYS[3])
end
forget(KEYS[1], KEYS[2])
redis.call('UNLINK', KEYS[4])
for i = 5, #KEYS, 2 do
  forget(KEYS[i], KEYS[i + 1])
end
return 1
