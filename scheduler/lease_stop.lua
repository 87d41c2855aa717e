-- lease_stop.lua: a lease is to end. The first time counts; one that is over stays as it is.
-- KEYS: the lease's hash, due. ARGV: id, whose it must be ('': anybody's).
-- Answers record, token, version, when it was asked to stop (''); or nothing: there is none such.
local have = redis.call('HMGET', KEYS[1], 'record', 'token', 'version', 'stop', 'tenant', 'state', 'until')
if not have[1] or (ARGV[2] ~= '' and have[5] ~= ARGV[2]) then
    return {}
end
local stop = have[4] or ''
if stop == '' and have[6] ~= 'ended' and have[6] ~= 'failed' then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    stop = string.format('%.0f', now)
    redis.call('HSET', KEYS[1], 'stop', stop)
    if tonumber(have[7]) <= now then
        redis.call('ZADD', KEYS[2], stop, ARGV[1])
    end
end
return {have[1], have[2], have[3], stop}
