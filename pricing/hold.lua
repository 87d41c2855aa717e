-- hold.lua: moves money between a purse and what gateways hold of it. A purse is a tenant's balance, or one period of
-- an API key's budget (no ledger then: a budget is a limit, not money).
--
-- KEYS  1 purse: hash avail, held, ...    2 holds: hash gateway -> amount    3 due: zset gateway -> expiry, Unix ms
--       4 the answer to this question, kept 10 minutes, so that a question asked again is not granted again
--       5 ledger: stream    6 chain: hash of its last entry    (5 and 6 for balances only)
-- ARGV  take  question gateway life_ms amount least limit keep_s   -> "<granted> <1 if nothing is left, else 0>"
--       keep  question gateway life_ms amount_back                 -> "kept" or "gone"
--       sweep                                                      -> earliest expiry left, "" for none
--
-- Amounts are decimal strings of nano-dollars and move by HINCRBY: numbers in Lua lose integers above 2^53, so only
-- signs are tested. A movement that turns out to go below zero is undone by its opposite before anything else.
local call = redis.call
local purse, holds, due = KEYS[1], KEYS[2], KEYS[3]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = string.format('%.0f', now)

local function post(id, kind, from, to, amount)
    if not KEYS[5] then
        return
    end
    local content = table.concat({id, now_text, kind, from, '-' .. amount, to, amount}, '\31')
    local hash = redis.sha1hex((call('GET', KEYS[6]) or '') .. content)
    call('XADD', KEYS[5], '*', 'd', content, 'h', hash)
    call('SET', KEYS[6], hash)
end

local function give_back(id, kind, amount)
    call('HINCRBY', purse, 'held', '-' .. amount)
    call('HINCRBY', purse, 'avail', amount)
    post(id, kind, 'held', 'avail', amount)
end

-- A budget whose limit was changed gets the difference.
local function set_limit(limit, keep_s)
    local old = call('HGET', purse, 'limit')
    if old ~= limit then
        call('HINCRBY', purse, 'avail', limit)
        if old and old ~= '0' then
            call('HINCRBY', purse, 'avail', '-' .. old)
        end
        call('HSET', purse, 'limit', limit)
    end
    call('EXPIRE', purse, keep_s)
end

local function take(question, gateway, life_ms, amount, least, limit, keep_s)
    local answer = call('GET', KEYS[4])
    if answer then
        return answer
    end
    if limit ~= '' then
        set_limit(limit, keep_s)
    end
    -- Of a small purse one gateway takes only a quarter at a time, so that others find some too. Inexact, which does no
    -- harm: it only chooses the amount.
    local quarter = math.floor(tonumber(call('HGET', purse, 'avail') or '0') / 4)
    if quarter < tonumber(amount) then
        amount = string.format('%.0f', math.max(quarter, tonumber(least)))
    end
    local left = call('HINCRBY', purse, 'avail', '-' .. amount)
    if left < 0 then
        call('HINCRBY', purse, 'avail', amount) -- undone
        amount = call('HGET', purse, 'avail')
        if tonumber(amount) <= 0 then
            return '0 1'
        end
        call('HSET', purse, 'avail', '0')
        left = 0
    end
    call('HINCRBY', purse, 'held', amount)
    call('HINCRBY', holds, gateway, amount)
    call('ZADD', due, string.format('%.0f', now + life_ms), gateway)
    if limit ~= '' then
        call('EXPIRE', holds, keep_s)
        call('EXPIRE', due, keep_s)
    end
    post(question, 'hold', 'avail', 'held', amount)
    answer = amount .. (left == 0 and ' 1' or ' 0')
    call('SET', KEYS[4], answer, 'EX', 600)
    return answer
end

local function keep(question, gateway, life_ms, amount)
    local answer = call('GET', KEYS[4])
    if answer then
        return answer
    end
    if call('HEXISTS', holds, gateway) == 0 then
        return 'gone'
    end
    call('ZADD', due, string.format('%.0f', now + life_ms), gateway)
    if amount ~= '0' then
        if call('HINCRBY', holds, gateway, '-' .. amount) < 0 then
            call('HINCRBY', holds, gateway, amount) -- undone
            amount = call('HGET', holds, gateway)
            call('HSET', holds, gateway, '0')
        end
        if amount ~= '0' then
            give_back(question, 'release', amount)
        end
        if call('HGET', holds, gateway) == '0' then
            call('HDEL', holds, gateway)
            call('ZREM', due, gateway)
        end
        call('SET', KEYS[4], 'kept', 'EX', 600)
    end
    return 'kept'
end

local function sweep()
    for _, gateway in ipairs(call('ZRANGEBYSCORE', due, '-inf', now_text, 'LIMIT', 0, 16)) do
        local amount = call('HGET', holds, gateway)
        if amount and amount ~= '0' then
            local id = 'swp_' .. redis.sha1hex(purse .. gateway .. now_text):sub(1, 26)
            give_back(id, 'expire', amount)
        end
        call('HDEL', holds, gateway)
        call('ZREM', due, gateway)
    end
    return call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or ''
end

local verbs = {take = take, keep = keep, sweep = sweep}
return verbs[ARGV[1]](unpack(ARGV, 2))
