-- gateways_leave.lua: takes a gateway off the list.
-- KEYS: list, seen. ARGV: id.
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
