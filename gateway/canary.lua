-- canary.lua: keeps a question and its answer, while there are not many of the model.
--
-- KEYS  1 hash id -> text    ARGV  1 id    2 text    3 most of them    4 seconds to keep all of them
-- Gives 1 when it is kept.
local call = redis.call
if call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
end
call('HSET', KEYS[1], ARGV[1], ARGV[2])
call('EXPIRE', KEYS[1], ARGV[4], 'NX')
return 1
