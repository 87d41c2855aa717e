-- networks_orphans.lua: what runs on a network and is nobody's, by its poller alone.
-- KEYS: poller, state, orphans. ARGV: gateway, how many fields follow that are orphans now, these, then those that may
-- be (whose lease could not be read).
-- An orphan's value: when it was first seen, and when the network said that it ended it ('': not yet). One that is not
-- in the listing any more is forgotten, and counted where it was ended.
-- Answers 'lost', or of each orphan, in order, its age in ms and '1' where the network said before that it ended it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 'lost'
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local known, ages = {}, {}
for i = 3, #ARGV do
    known[ARGV[i]] = true
end
local have = redis.call('HGETALL', KEYS[3])
for i = 1, #have, 2 do
    if not known[have[i]] then
        redis.call('HDEL', KEYS[3], have[i])
        if string.find(have[i + 1], ' %d') then
            redis.call('HINCRBY', KEYS[2], 'orphans_ended', 1)
        end
    end
end
for i = 3, 2 + tonumber(ARGV[2]) do
    redis.call('HSETNX', KEYS[3], ARGV[i], string.format('%.0f ', now))
    local first, ended = string.match(redis.call('HGET', KEYS[3], ARGV[i]), '^(%d+) (%d*)')
    ages[#ages + 1] = string.format('%.0f', now - tonumber(first))
    ages[#ages + 1] = ended ~= '' and '1' or '0'
end
return ages
