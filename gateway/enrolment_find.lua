-- enrolment_find.lua: the enrolment of a token, by its digest.
-- KEYS: enrolments, tokens. ARGV: digest. Answers the JSON, or false.
local id = redis.call('HGET', KEYS[2], ARGV[1])
if not id then
    return false
end
local found = redis.call('HGET', KEYS[1], id)
if not found or found == '' then
    redis.call('HDEL', KEYS[2], ARGV[1])
    return false
end
return found
