-- idempotency_claim.lua: claims a request by its Idempotency-Key, or finds what came of it.
-- KEYS: record. ARGV: digest of the body, fresh seed, life in ms.
-- Answers {'open', seed}, {'done', seed, status, answer} or {'mismatch'}.
local body = redis.call('HGET', KEYS[1], 'body')
if not body then
    redis.call('HSET', KEYS[1], 'body', ARGV[1], 'seed', ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return {'open', ARGV[2]}
end
if body ~= ARGV[1] then
    return {'mismatch'}
end
local stored = redis.call('HMGET', KEYS[1], 'seed', 'status', 'answer')
if stored[2] then
    return {'done', stored[1], stored[2], stored[3]}
end
return {'open', stored[1]}
