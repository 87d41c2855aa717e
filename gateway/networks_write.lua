-- networks_write.lua: offers of a network that changed, by its poller alone.
-- KEYS: poller, offers, state, changes. ARGV: gateway, then for each offer its id and its record ('': it is gone).
-- Answers 'lost', or the new version and the change's id in the stream. Each version is one change; who misses one
-- reads all.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 'lost'
end
local version = redis.call('HINCRBY', KEYS[3], 'version', 1)
local change = {'XADD', KEYS[4], 'MAXLEN', '~', '300', '*', 'v', version}
for i = 2, #ARGV - 1, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[2], ARGV[i])
    else
        redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    end
    change[#change + 1] = ARGV[i]
    change[#change + 1] = ARGV[i + 1]
end
local id = redis.call(unpack(change))
redis.call('HSET', KEYS[3], 'last', id)
return {version, id}
