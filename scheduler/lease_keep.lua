-- lease_keep.lua: its owner goes on with a lease.
-- KEYS: the lease's hash, due. ARGV: id, token, for how many ms. Answers 'kept', 'lost' or 'missing'.
local have = redis.call('HMGET', KEYS[1], 'token', 'until')
if not have[1] then
    return 'missing'
end
if have[1] ~= ARGV[2] or have[2] == '0' then
    return 'lost'
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'until', ends)
redis.call('ZADD', KEYS[2], ends, ARGV[1])
return 'kept'
