-- networks_polled.lua: how a look at a network ended, by its poller alone.
-- KEYS: poller, state. ARGV: gateway, 1 when all was seen, then fields and values of the state.
-- Answers 'lost' or the time in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 'lost'
end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
if ARGV[2] == '1' then
    redis.call('HSET', KEYS[2], 'polled_at', now)
end
redis.call('HSET', KEYS[2], 'looked_at', now, unpack(ARGV, 3))
return now
