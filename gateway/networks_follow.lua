-- networks_follow.lua: what a gateway must know of a network, each second; who wants to poll it becomes its poller when
-- there is none, and stays it.
-- KEYS: poller, state, changes. ARGV: gateway, how long it stays poller in ms (0: it does not want to), the last change
-- it has, how many changes it takes at most.
-- Answers the time in ms, the poller or '', the state's fields and values, the changes after that one.
local holder = redis.call('GET', KEYS[1])
if ARGV[2] ~= '0' and (not holder or holder == ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    holder = ARGV[1]
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local read = redis.call('XREAD', 'COUNT', ARGV[4], 'STREAMS', KEYS[3], ARGV[3])
return {string.format('%.0f', now), holder or '', redis.call('HGETALL', KEYS[2]), read and read[1][2] or {}}
