-- registry.lua: which purses have holds, and when to look at each again, so that a sweep finds the holds of gateways
-- that died. A purse is noted before a hold is taken of it.
--
-- KEYS  1 due: zset purse -> Unix ms of the next look    2 gen: hash purse -> how often it was noted
-- ARGV  note purse life_ms
--       due  most                -> purse, gen, purse, gen, ...
--       next purse gen at_ms     at_ms "": no holds are left. Ignored if the purse was noted since `due` gave that gen,
--                                for then the look may have missed a new hold: the purse stays due.
local call = redis.call
local due, gen = KEYS[1], KEYS[2]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local verb, purse = ARGV[1], ARGV[2]

if verb == 'note' then
    call('HINCRBY', gen, purse, 1)
    -- LT: somebody else's hold may be due earlier.
    call('ZADD', due, 'LT', string.format('%.0f', now + ARGV[3]), purse)
elseif verb == 'due' then
    local found = {}
    for _, name in ipairs(call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])) do
        found[#found + 1] = name
        found[#found + 1] = call('HGET', gen, name) or ''
    end
    return found
elseif (call('HGET', gen, purse) or '') == ARGV[3] then
    if ARGV[4] == '' then
        call('ZREM', due, purse)
        call('HDEL', gen, purse)
    else
        call('ZADD', due, ARGV[4], purse)
    end
end
return 0
