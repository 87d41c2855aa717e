-- lease_save.lua: stores what its owner made of a lease, if it still is the owner and knows the newest version.
-- KEYS: the lease's hash, due, events, the tenant's open ones. ARGV: id, token, version, record, state, reason, due (ms; '0': never again),
-- '1' when it stays claimed, for how many ms, the stop that the owner knows of ('0': none), for how many ms a lease that
-- is over is kept.
-- Answers {'saved' | 'changed' (its state too) | 'lost' | 'missing', when it was asked to stop ('')}.
local have = redis.call('HMGET', KEYS[1], 'token', 'version', 'stop', 'state', 'record')
if not have[1] then
    return {'missing', ''}
end
local stop = have[3] or ''
if have[1] ~= ARGV[2] then
    return {'lost', stop}
end
if have[2] ~= ARGV[3] then
    -- The same save once more, whose answer was lost; or another's.
    return {have[5] == ARGV[4] and 'saved' or 'lost', stop}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = ARGV[8] == '1' and string.format('%.0f', now + tonumber(ARGV[9])) or '0'
redis.call('HSET', KEYS[1], 'record', ARGV[4], 'state', ARGV[5], 'until', ends)
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ends ~= '0' then
    redis.call('ZADD', KEYS[2], ends, ARGV[1])
elseif ARGV[7] == '0' then
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('SREM', KEYS[4], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[11])
elseif stop ~= '' and ARGV[10] == '0' then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
else
    redis.call('ZADD', KEYS[2], ARGV[7], ARGV[1])
end
if have[4] == ARGV[5] then
    return {'saved', stop}
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'id', ARGV[1], 'state', ARGV[5], 'reason', ARGV[6])
return {'changed', stop}
