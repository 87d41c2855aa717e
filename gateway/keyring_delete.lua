-- keyring_delete.lua: deletes a key; harmless when it is deleted already. The log keeps its id.
-- KEYS: keys, log, version. ARGV: id. Answers 1, or 0 when there never was such a key.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
    redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[1])
    return 1
end
return redis.call('ZSCORE', KEYS[2], ARGV[1]) and 1 or 0
