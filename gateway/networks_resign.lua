-- networks_resign.lua: a gateway that goes is no poller any more, so that another takes over at once.
-- KEYS: poller. ARGV: gateway.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
return 'ok'
