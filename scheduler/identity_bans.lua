-- identity_bans.lua: the bans that last, those that end first in front.
-- KEYS: the bans, their ends. ARGV: how many at most.
-- Answers digest, text, ...; a text is 'at_ms until_ms bans kind worker reason'.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local digests = redis.call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', now), '+inf', 'LIMIT', 0, ARGV[1])
local answer = {}
if #digests == 0 then
    return answer
end
local texts = redis.call('HMGET', KEYS[1], unpack(digests))
for i, digest in ipairs(digests) do
    if texts[i] then
        answer[#answer + 1] = digest
        answer[#answer + 1] = texts[i]
    end
end
return answer
