-- idempotency_complete.lua: stores the first answer to a claimed request; a later one changes nothing.
-- KEYS: record. ARGV: digest of the body, seed, status, answer, life in ms (of a record that was lost meanwhile).
local stored = redis.call('HMGET', KEYS[1], 'seed', 'status')
if stored[2] or (stored[1] and stored[1] ~= ARGV[2]) then
    return 0
end
redis.call('HSET', KEYS[1], 'body', ARGV[1], 'seed', ARGV[2], 'status', ARGV[3], 'answer', ARGV[4])
if not stored[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return 1
