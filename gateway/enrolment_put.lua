-- enrolment_put.lua: stores an enrolment and the digest of its token, once.
-- KEYS: enrolments, tokens. ARGV: id, JSON, digest. Answers 1, or 0 when the id is there already.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
return 1
