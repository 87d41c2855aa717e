-- worker_reputation.lua: adds counts to a worker's reputation, decayed to now (half-life 7 days, as in reputation.c).
-- KEYS: the worker's hash. ARGV: good, bad.
-- Answers 'missing', 'fed' (the feed should tell; at most once a second) or 'quiet'. Doubles are fine: this is no money.
local key = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local have = redis.call('HMGET', key, 'good', 'bad', 'reputation_at_ms', 'reputation_fed_ms', 'token')
if not have[5] then
    return 'missing'
end
local at = tonumber(have[3]) or now
local keep = 1
if now > at then
    keep = 2 ^ (-(now - at) / (7 * 24 * 3600 * 1000))
    at = now
end
local good = (tonumber(have[1]) or 0) * keep + tonumber(ARGV[1])
local bad = (tonumber(have[2]) or 0) * keep + tonumber(ARGV[2])
redis.call('HSET', key, 'good', string.format('%.17g', good), 'bad', string.format('%.17g', bad),
    'reputation_at_ms', string.format('%.0f', at))
local fed = tonumber(have[4]) or 0
if now >= fed and now - fed < 1000 then
    return 'quiet'
end
redis.call('HSET', key, 'reputation_fed_ms', string.format('%.0f', now))
return 'fed'
