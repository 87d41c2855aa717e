-- gateways_sign.lua: a gateway tells that it is there, and gets the list of all that are.
-- KEYS: list, seen. ARGV: id, JSON, life in ms, 1 when it may take others off. Answers the JSON texts.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local dead = {}
if ARGV[4] == '1' then
    dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]), 'LIMIT', 0, 100)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for _, id in ipairs(dead) do
    if id ~= ARGV[1] then
        redis.call('HDEL', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
    end
end
return redis.call('HVALS', KEYS[1])
