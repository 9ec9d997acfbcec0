-- KEYS: the window's place aside, generation, the window and each stale value, then the lease of
-- each of these. ARGV: topic, the channel's version before the write or ''. Takes no memory, so that
-- a full Redis lets it pass.
local topic, previous = ARGV[1], ARGV[2]
local held, window = KEYS[1], KEYS[3]
local values = (#KEYS - 2) / 2
-- As many as unpack surely takes.
local most = 4000
local function fits(key)
  local head = redis.pcall('GETRANGE', key, 0, 40)
  return type(head) == 'string' and string.match(head, '^{"version":(%d+)') == previous
end
-- Aside is only what this write's own invalidation can patch: an earlier write's that comes late
-- must not bring a window back before this commit.
if fits(window) then
  redis.call('RENAME', window, held)
elseif not fits(held) then
  redis.call('UNLINK', held)
end
for from = 3 + values, #KEYS, most do
  local holders = redis.call('MGET', unpack(KEYS, from, math.min(from + most - 1, #KEYS)))
  for i, holder in ipairs(holders) do
    if holder and string.sub(holder, -1) == '+' then
      redis.call('PUBLISH', topic, KEYS[from + i - 1 - values])
    end
  end
end
for from = 2, #KEYS, most do
  redis.call('UNLINK', unpack(KEYS, from, math.min(from + most - 1, #KEYS)))
end
return 1
