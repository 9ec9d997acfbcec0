-- KEYS: window, its lease, its place aside, generation, then each stale value and its lease.
-- ARGV: topic. Takes no memory, so that a full Redis lets it pass.
local topic = ARGV[1]
local function forget(value, lease)
  local holder = redis.pcall('GET', lease)
  redis.call('UNLINK', value, lease)
  if type(holder) == 'string' and string.sub(holder, -1) == '+' then
    redis.call('PUBLISH', topic, value)
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[3])
end
forget(KEYS[1], KEYS[2])
redis.call('UNLINK', KEYS[4])
for i = 5, #KEYS, 2 do
  forget(KEYS[i], KEYS[i + 1])
end
return 1
