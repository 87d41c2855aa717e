-- identity_newcomer.lua: takes one of the admissions that an address block has in an hour and in a day.
-- KEYS: the counter of the hour, of the day, the mark that this worker was counted. ARGV: how many an hour, a day.
-- Answers 0, or in how many ms to try again.
local spans = {3600 * 1000, 24 * 3600 * 1000}
if redis.call('EXISTS', KEYS[3]) == 1 then
    return 0
end
for i = 2, 1, -1 do
    if (tonumber(redis.call('GET', KEYS[i])) or 0) >= tonumber(ARGV[i]) then
        return math.max(1, redis.call('PTTL', KEYS[i]))
    end
end
for i = 1, 2 do
    if redis.call('INCR', KEYS[i]) == 1 then
        redis.call('PEXPIRE', KEYS[i], spans[i])
    end
end
redis.call('SET', KEYS[3], '1', 'PX', spans[2])
return 0
