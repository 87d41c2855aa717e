-- idempotency_release.lua: forgets a claim whose request was refused and changed nothing.
-- KEYS: record. ARGV: seed.
local stored = redis.call('HMGET', KEYS[1], 'seed', 'status')
if stored[1] == ARGV[1] and not stored[2] then
    return redis.call('DEL', KEYS[1])
end
return 0
