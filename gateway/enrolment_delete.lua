-- enrolment_delete.lua: revokes an enrolment. An empty value stays as the mark that there was one; the digest of its
-- token goes when somebody comes with it.
-- KEYS: enrolments. ARGV: id. Answers 1, or 0 when there never was one.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], '')
return 1
