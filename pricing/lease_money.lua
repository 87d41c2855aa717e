-- lease_money.lua: what a lease holds of a purse: of its tenant's balance, or of one period of its key's budget (no
-- ledger then). Nobody's life bounds such a hold: it has no entry in `due`, so no sweep finds it.
--
-- KEYS  1 purse: hash avail, held, ...    2 holds: hash owner -> amount    3 of the lease: hash `closed`, `holds` (how
--       many transfers it made), and what settle.lua keeps
--       4 ledger: stream    5 chain: hash of its last entry    (4 and 5 for balances only)
-- ARGV  hold lease want limit keep_s     limit, keep_s: of a budget, else "" -> "held", "poor" or "closed"
--       release lease keep_s             -> "released"
--
-- Amounts are decimal strings of nano-dollars and move by HINCRBY; only signs are tested. A step that went below zero is
-- undone by its opposite before anything else.
local call = redis.call
local purse, holds, state = KEYS[1], KEYS[2], KEYS[3]
local verb, lease = ARGV[1], ARGV[2]

local function post(kind, from, to, amount)
    if not KEYS[4] then
        return
    end
    local clock = call('TIME')
    local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
    local id = lease .. ':h' .. string.format('%.0f', call('HINCRBY', state, 'holds', 1))
    local content = table.concat({id, now, kind, from, '-' .. amount, to, amount}, '\31')
    local hash = redis.sha1hex((call('GET', KEYS[5]) or '') .. content)
    call('XADD', KEYS[4], '*', 'd', content, 'h', hash)
    call('SET', KEYS[5], hash)
end

if verb == 'release' then
    local amount = call('HGET', holds, lease)
    if amount and amount ~= '0' then
        call('HINCRBY', purse, 'held', '-' .. amount)
        call('HINCRBY', purse, 'avail', amount)
        post('release', 'held', 'avail', amount)
    end
    call('HDEL', holds, lease)
    call('HSET', state, 'closed', '1')
    call('EXPIRE', state, ARGV[3])
    return 'released'
end

local want, limit, keep_s = ARGV[3], ARGV[4], ARGV[5]
if call('HEXISTS', state, 'closed') == 1 then
    return 'closed'
end
-- What is missing is found by holding it: the hold becomes `want`, or is left where it was above that.
local had = call('HGET', holds, lease) or '0'
local missing = want
if had ~= '0' then
    call('HSET', holds, lease, want)
    local more = call('HINCRBY', holds, lease, '-' .. had)
    missing = call('HGET', holds, lease)
    call('HSET', holds, lease, had)
    if more <= 0 then
        return 'held'
    end
end
if missing == '0' then
    return 'held'
end
if limit ~= '' then
    local old = call('HGET', purse, 'limit')
    if old ~= limit then -- as hold.lua does
        call('HINCRBY', purse, 'avail', limit)
        if old and old ~= '0' then
            call('HINCRBY', purse, 'avail', '-' .. old)
        end
        call('HSET', purse, 'limit', limit)
    end
    call('EXPIRE', purse, keep_s)
end
if call('HINCRBY', purse, 'avail', '-' .. missing) < 0 then
    call('HINCRBY', purse, 'avail', missing) -- undone
    return 'poor'
end
call('HINCRBY', purse, 'held', missing)
call('HINCRBY', holds, lease, missing)
if limit ~= '' then
    call('EXPIRE', holds, keep_s)
    call('EXPIRE', state, keep_s)
end
post('hold', 'avail', 'held', missing)
return 'held'
