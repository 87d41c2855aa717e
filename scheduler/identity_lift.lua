-- identity_lift.lua: forgets what is held against some identities.
-- KEYS: the bans, their ends, then the hashes of the identities. ARGV: the digest of each.
-- Answers how many had something held against them.
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return redis.call('DEL', unpack(KEYS, 3))
