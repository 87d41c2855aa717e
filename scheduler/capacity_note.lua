-- capacity_note.lua: what a try told of a class of offers.
-- KEYS: the class's hash, the index of classes. ARGV: its digest, 'had', 'lacked' or 'try', ms in which the score halves,
-- first back-off and the longest in ms, the score from which on it is closed, ms until it is forgotten.
local key, index = KEYS[1], KEYS[2]
local half, first, longest, closes, keeps = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
    tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local have = redis.call('HMGET', key, 'score', 'at_ms', 'until_ms')
local score, at, ends = tonumber(have[1]) or 0, tonumber(have[2]) or now, tonumber(have[3]) or 0
local tried = 0
if now > at then
    score = score * 2 ^ (-(now - at) / half)
end
if ARGV[2] == 'lacked' then
    score = math.min(score + 1, 64)
    if score >= closes then
        ends = now + math.min(first * 2 ^ (score - closes), longest)
    end
elseif ARGV[2] == 'had' then
    score, ends = 0, 0
else
    tried = now
end
redis.call('HSET', key, 'score', string.format('%.17g', score), 'at_ms', string.format('%.0f', now), 'until_ms',
    string.format('%.0f', ends), 'try_ms', string.format('%.0f', tried))
redis.call('PEXPIRE', key, ARGV[7])
redis.call('ZADD', index, string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now - keeps))
return 'noted'
