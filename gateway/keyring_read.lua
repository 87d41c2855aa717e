-- keyring_read.lua: what changed in the keyring since a version, oldest first.
-- KEYS: keys, log, version. ARGV: since, most.
-- Answers {version, read up to, id, stored JSON or false when deleted, ...}. A `since` from the future (the store was
-- lost and made anew) answers {version, '-1'}: read everything again.
local version = redis.call('GET', KEYS[3]) or '0'
if tonumber(ARGV[1]) > tonumber(version) then
    return {version, '-1'}
end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local answer = {version, version}
for i = 1, #found, 2 do
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = redis.call('HGET', KEYS[1], found[i])
end
if #found == 2 * tonumber(ARGV[2]) then
    answer[2] = found[#found]
end
return answer
