-- credit.lua: the operator's credit, ext:psp -> avail, once by its transfer id.
--
-- KEYS  1 purse    2 the transfer's memory    3 ledger: stream    4 chain: hash of its last entry
-- ARGV  1 transfer id    2 amount    3 seconds to remember it for
-- Gives {"ok", avail after the first run}, {"mismatch"} or {"overflow"}.
local call = redis.call
local purse, id, amount = KEYS[1], ARGV[1], ARGV[2]

local before = call('GET', KEYS[2])
if before then
    local first_amount, avail = before:match('^(%d+) (%-?%d+)$')
    if first_amount ~= amount then
        return {'mismatch'}
    end
    return {'ok', avail}
end
-- All that was ever credited fits 64 bits or this fails, before anything is written; then avail, a part of it, fits too.
local paid = redis.pcall('HINCRBY', purse, 'ext:psp', '-' .. amount)
if type(paid) == 'table' then
    return {'overflow'}
end
call('HINCRBY', purse, 'avail', amount)
local clock = call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local content = table.concat({id, now, 'credit', 'ext:psp', '-' .. amount, 'avail', amount}, '\31')
local hash = redis.sha1hex((call('GET', KEYS[4]) or '') .. content)
call('XADD', KEYS[3], '*', 'd', content, 'h', hash)
call('SET', KEYS[4], hash)
local avail = call('HGET', purse, 'avail')
call('SET', KEYS[2], amount .. ' ' .. avail, 'EX', ARGV[3])
return {'ok', avail}
