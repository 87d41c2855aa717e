-- lease_claim.lua: takes a due lease for a while, with the next fencing token.
-- KEYS: the lease's hash, due, the shard's last token. ARGV: id, for how many ms.
-- Answers record, token, version, when it was asked to stop (''); or nothing: it is not due (any more).
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not due or tonumber(due) > now then
    return {}
end
local have = redis.call('HMGET', KEYS[1], 'record', 'version', 'stop')
if not have[1] then
    redis.call('ZREM', KEYS[2], ARGV[1])
    return {}
end
local ends = string.format('%.0f', now + tonumber(ARGV[2]))
local token = string.format('%.0f', redis.call('INCR', KEYS[3]))
redis.call('HSET', KEYS[1], 'token', token, 'until', ends)
redis.call('ZADD', KEYS[2], ends, ARGV[1])
return {have[1], token, have[2], have[3] or ''}
