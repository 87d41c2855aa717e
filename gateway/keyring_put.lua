-- keyring_put.lua: stores a key of a known tenant, once.
-- KEYS: tenants, keys, log, version. ARGV: tenant, id, JSON.
-- Answers {'tenant'} (no such), {'new', JSON} or {'old', stored JSON or false when deleted}.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return {'tenant'}
end
if redis.call('ZSCORE', KEYS[3], ARGV[2]) then
    return {'old', redis.call('HGET', KEYS[2], ARGV[2])}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[2])
return {'new', ARGV[3]}
