-- lease_create.lua: stores a new lease; of one that is there nothing changes.
-- KEYS: the lease's hash, due, all, the tenant's index, events, the tenant's open ones. ARGV: id, tenant, record, state,
-- due (ms).
-- Answers 'new' or 'same'.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 'same'
end
redis.call('HSET', KEYS[1], 'record', ARGV[3], 'version', '1', 'token', '0', 'until', '0', 'tenant', ARGV[2], 'state',
    ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('ZADD', KEYS[4], 0, ARGV[1])
redis.call('SADD', KEYS[6], ARGV[1])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', '10000', '*', 'id', ARGV[1], 'state', ARGV[4], 'reason', '')
return 'new'
