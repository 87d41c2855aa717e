-- worker_reputation.lua: adds evidence to a worker's reputation, decayed to now: good with a half-life of 7 days, bad
-- with 30 days, both 1000 at most, as in reputation.c.
-- KEYS: the worker's hash. ARGV: good, bad and forfeited share of the good of hardware, correctness, availability,
-- network (12 numbers); what the four bad counts are raised to at least; what was earned, in USD nano; then payers,
-- each: name, weight for good availability.
-- Answers 'missing', 'fed' (the feed should tell; at most once a second) or 'quiet'.
-- Doubles are fine: no money moves by what is earned here.
--
-- A payer's sum (decayed like good) never passes a quarter of good availability, so that nobody buys a name. Sums are
-- kept of 8 payers. One that is not among them takes the place of the least and starts with its sum: a sum may be more
-- than the payer gave, never less, and as the 8 never hold more than all of good, the least holds no more than an
-- eighth: a newcomer always has room.
local COUNT_MAX, PAYERS_MAX, SHARE = 1000, 8, 0.25
local WEEK, MONTH = 7 * 24 * 3600 * 1000, 30 * 24 * 3600 * 1000
local names = {'hardware', 'correctness', 'availability', 'network'}
local key = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local have = redis.call('HMGET', key, 'token', 'reputation_at_ms', 'reputation_fed_ms', 'earned_usd_nano', 'payers',
    'good_hardware', 'good_correctness', 'good_availability', 'good_network',
    'bad_hardware', 'bad_correctness', 'bad_availability', 'bad_network')
if not have[1] then
    return 'missing'
end
local at = tonumber(have[2]) or now
local keep_good, keep_bad = 1, 1
if now > at then
    keep_good = 2 ^ (-(now - at) / WEEK)
    keep_bad = 2 ^ (-(now - at) / MONTH)
    at = now
end
local good, bad = {}, {}
for i = 1, 4 do
    good[i] = (tonumber(have[5 + i]) or 0) * keep_good * (1 - tonumber(ARGV[8 + i])) + tonumber(ARGV[i])
    good[i] = math.min(COUNT_MAX, good[i])
    bad[i] = (tonumber(have[9 + i]) or 0) * keep_bad + tonumber(ARGV[4 + i])
    bad[i] = math.min(COUNT_MAX, math.max(bad[i], tonumber(ARGV[12 + i])))
end

local payers = {} -- name, sum; few, so a list will do
for name, sum in string.gmatch(have[5] or '', '(%w+)=([^,]+)') do
    payers[#payers + 1] = {name, tonumber(sum) * keep_good}
end
for i = 18, #ARGV - 1, 2 do
    local payer, least
    for _, known in ipairs(payers) do
        if known[1] == ARGV[i] then
            payer = known
        end
        if not least or known[2] < least[2] then
            least = known
        end
    end
    if not payer and #payers < PAYERS_MAX then
        payer = {ARGV[i], 0}
        payers[#payers + 1] = payer
    elseif not payer then
        payer = least
        payer[1] = ARGV[i]
    end
    -- sum + x <= SHARE * (good + x), and that good is COUNT_MAX at most
    local room = (SHARE * good[3] - payer[2]) / (1 - SHARE)
    local weight = math.max(0, math.min(tonumber(ARGV[i + 1]), room, SHARE * COUNT_MAX - payer[2]))
    payer[2] = payer[2] + weight
    good[3] = math.min(COUNT_MAX, good[3] + weight)
end
local texts = {}
for _, payer in ipairs(payers) do
    texts[#texts + 1] = payer[1] .. '=' .. string.format('%.17g', payer[2])
end

local earned = math.min(9e15, math.floor((tonumber(have[4]) or 0) * keep_good) + tonumber(ARGV[17]))
local fields = {'reputation_at_ms', string.format('%.0f', at), 'earned_usd_nano', string.format('%.0f', earned),
    'payers', table.concat(texts, ',')}
for i = 1, 4 do
    fields[#fields + 1] = 'good_' .. names[i]
    fields[#fields + 1] = string.format('%.17g', good[i])
    fields[#fields + 1] = 'bad_' .. names[i]
    fields[#fields + 1] = string.format('%.17g', bad[i])
end
redis.call('HSET', key, unpack(fields))
local fed = tonumber(have[3]) or 0
if now >= fed and now - fed < 1000 then
    return 'quiet'
end
redis.call('HSET', key, 'reputation_fed_ms', string.format('%.0f', now))
return 'fed'
