-- identity_note.lua: what is held against some identities (a worker's devices, key and machine); adds to it.
-- KEYS: the bans that last, their ends, then the hashes of the identities. ARGV: bad of hardware, correctness,
-- availability, network; why they are banned ('' for no ban); the worker; the ms of a first ban; how often it doubles
-- at most; for how many ms without news something is remembered; how many bans are listed at most; then for each
-- identity its digest and its kind ('host' is never banned).
-- Answers the worst of any of them after that: bad of the four dimensions decayed to now (half-life 30 days), bans so
-- far, the end of the ban (Unix ms, 0 for none), its reason.
local MONTH, COUNT_MAX, PRUNED = 30 * 24 * 3600 * 1000, 1000, 100
local names = {'bad_hardware', 'bad_correctness', 'bad_availability', 'bad_network'}
local bans, due = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local reason, worker, forget = ARGV[5], ARGV[6], tonumber(ARGV[9])
local adds = reason ~= ''
for i = 1, 4 do
    adds = adds or tonumber(ARGV[i]) > 0
end

local known, worst, most, ends, why = {}, {0, 0, 0, 0}, 0, 0, ''
for k = 3, #KEYS do
    local have = redis.call('HMGET', KEYS[k], 'at_ms', 'bans', 'banned_until_ms', 'reason', unpack(names))
    local at = tonumber(have[1]) or now
    local keep = now > at and 2 ^ (-(now - at) / MONTH) or 1
    local one = {}
    for i = 1, 4 do
        one[i] = math.min(COUNT_MAX, (tonumber(have[4 + i]) or 0) * keep + tonumber(ARGV[i]))
        worst[i] = math.max(worst[i], one[i])
    end
    most = math.max(most, tonumber(have[2]) or 0)
    if (tonumber(have[3]) or 0) > ends then
        ends, why = tonumber(have[3]), have[4] or ''
    end
    known[k] = one
end

if reason ~= '' then
    most = most + 1
    local until_ms = now + tonumber(ARGV[7]) * 2 ^ math.min(most - 1, tonumber(ARGV[8]))
    if until_ms > ends then
        ends, why = until_ms, reason
    end
end
for k = 3, adds and #KEYS or 0 do
    local digest, kind = ARGV[11 + 2 * (k - 3)], ARGV[12 + 2 * (k - 3)]
    local fields = {'at_ms', string.format('%.0f', now), 'worker', worker}
    for i = 1, 4 do
        fields[#fields + 1] = names[i]
        fields[#fields + 1] = string.format('%.17g', known[k][i])
    end
    if reason ~= '' and kind ~= 'host' then
        for _, word in ipairs({'bans', string.format('%.0f', most), 'banned_until_ms', string.format('%.0f', ends),
            'reason', why}) do
            fields[#fields + 1] = word
        end
        redis.call('HSET', bans, digest, string.format('%.0f %.0f %.0f %s %s %s', now, ends, most, kind, worker, why))
        redis.call('ZADD', due, string.format('%.0f', ends), digest)
    end
    redis.call('HSET', KEYS[k], unpack(fields))
    redis.call('PEXPIRE', KEYS[k], string.format('%.0f', math.max(forget, ends - now)))
end
if reason ~= '' then
    -- The list only shows; the hashes above decide. What is over, or too much, leaves it.
    local over = redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now), 'LIMIT', 0, PRUNED)
    local many = redis.call('ZCARD', due) - #over - tonumber(ARGV[10])
    if many > 0 then
        for _, digest in ipairs(redis.call('ZRANGE', due, #over, #over + many - 1)) do
            over[#over + 1] = digest
        end
    end
    if #over > 0 then
        redis.call('ZREM', due, unpack(over))
        redis.call('HDEL', bans, unpack(over))
    end
end
local answer = {}
for i = 1, 4 do
    answer[i] = string.format('%.17g', worst[i])
end
answer[5], answer[6], answer[7] = string.format('%.0f', most), string.format('%.0f', ends), why
return answer
