-- networks_origin.lua: what became of a machine is held for or against who is behind it, decayed to now: good with a
-- half-life of 7 days, bad with 30 days, both 1000 at most, as in scheduler/reputation.c.
-- KEYS: origins, state. ARGV: most origins; then for each origin its name and 12 numbers: good, bad and forfeited share
-- of the good of hardware, correctness, availability, network.
-- An origin's value: 'at good good good good bad bad bad bad'.
local COUNT_MAX = 1000
local WEEK, MONTH = 7 * 24 * 3600 * 1000, 30 * 24 * 3600 * 1000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i = 2, #ARGV - 12, 13 do
    local have = {}
    local value = redis.call('HGET', KEYS[1], ARGV[i])
    for number in string.gmatch(value or '', '%S+') do
        have[#have + 1] = tonumber(number)
    end
    if value or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[1]) then
        local at = have[1] or now
        local keep_good, keep_bad = 1, 1
        if now > at then
            keep_good = 2 ^ (-(now - at) / WEEK)
            keep_bad = 2 ^ (-(now - at) / MONTH)
            at = now
        end
        local text = string.format('%.0f', at)
        for d = 1, 4 do
            local good = (have[1 + d] or 0) * keep_good * (1 - tonumber(ARGV[i + 8 + d])) + tonumber(ARGV[i + d])
            text = text .. string.format(' %.9g', math.min(COUNT_MAX, good))
        end
        for d = 1, 4 do
            local bad = (have[5 + d] or 0) * keep_bad + tonumber(ARGV[i + 4 + d])
            text = text .. string.format(' %.9g', math.min(COUNT_MAX, bad))
        end
        redis.call('HSET', KEYS[1], ARGV[i], text)
    end
end
return redis.call('HINCRBY', KEYS[2], 'origins', 1)
