-- settle.lua: moves usage records of one tenant, one gateway and one UTC day into the ledger, each once by its id.
--
-- KEYS  1 purse: hash avail, held, sup:<supplier>:pending, plat:revenue, plat:loss, ext:psp; their sum is zero
--       2 holds: hash gateway -> amount    3 seen: set of record ids of that day    4 usage rows of that day: stream,
--       an entry a call with a field r for each row
--       5 invoice lines of that month: hash    6 ledger: stream    7 chain: hash of its last entry    8 days: set
--       9 short: hash record id -> what it was charged, where that is less than its cost
--       10 for a slice of a lease, which comes alone: hash n (how many slices were settled) and, for each run of the
--       lease, up to which millisecond it is charged
-- ARGV  1 gateway    2 day    3 seconds to remember ids for    then a record each:
--       id at_ms cost loss income take supplier line gpu_ms row kind penalty
--       cost + loss = income (the supplier's) + take (ours); line "" keeps the record off the invoice.
--       kind  usage    a call
--             check    the platform's own call: cost 0, its loss is booked to plat:checks
--             refund   of the call of which it is a copy, with the id "refund:<id>"; penalty is the supplier's
--       Of a slice, the last field is "<n> <run> <from ms> <until ms>".
-- Gives the number of records that were new; of a slice that does not begin where its run was charged up to,
-- "<n> <charged ms>" as they are, and nothing was done.
--
-- Amounts are decimal strings and move by HINCRBY. Numbers in Lua are exact below 2^53 only: those of at most 14 digits
-- are summed here (a batch is at most 64 records), longer ones move one by one.
local call = redis.call
local purse, holds, gateway = KEYS[1], KEYS[2], ARGV[1]
local FIELDS = 12
local SUMMED_DIGITS = 14

local is_slice = KEYS[10] ~= nil
if is_slice then
    local n, run, from, till = ARGV[3 + FIELDS]:match('^(%d+) (%d+) (%d+) (%d+)$')
    local was = call('HMGET', KEYS[10], 'n', run)
    local was_n, was_at = was[1] or '0', was[2] or '0'
    if n ~= was_n or from ~= was_at then
        return was_n .. ' ' .. was_at
    end
    call('HSET', KEYS[10], 'n', string.format('%.0f', n + 1), run, till)
end

local ids = {}
for i = 4, #ARGV, FIELDS do
    ids[#ids + 1] = ARGV[i]
end
local was_seen = call('SMISMEMBER', KEYS[3], unpack(ids))
local fresh, fresh_ids, once = {}, {}, {}
for n, id in ipairs(ids) do
    if was_seen[n] == 0 and not once[id] then
        once[id] = true
        fresh[#fresh + 1] = 4 + (n - 1) * FIELDS
        fresh_ids[#fresh_ids + 1] = id
    end
end
if #fresh == 0 then
    return 0
end
call('SADD', KEYS[3], unpack(fresh_ids))
call('EXPIRE', KEYS[3], ARGV[3])
call('SADD', KEYS[8], ARGV[2])

local function text(number)
    return string.format('%.0f', number)
end

local function scratch(a, b) -- a + b, exactly
    call('HSET', purse, 'scratch', a)
    call('HINCRBY', purse, 'scratch', b)
    local sum = call('HGET', purse, 'scratch')
    call('HDEL', purse, 'scratch')
    return sum
end

-- The usual case: the gateway's hold covers the whole batch.
local total, is_covered = 0, true
for _, at in ipairs(fresh) do
    if ARGV[at + 10] == 'refund' then
        -- takes nothing from the hold
    elseif #ARGV[at + 2] > SUMMED_DIGITS then
        is_covered = false
    else
        total = total + tonumber(ARGV[at + 2])
    end
end
if is_covered and total > 0 then
    if call('HINCRBY', holds, gateway, '-' .. text(total)) < 0 then
        call('HINCRBY', holds, gateway, text(total)) -- undone: record by record then
        is_covered = false
    else
        call('HINCRBY', purse, 'held', '-' .. text(total))
    end
end

-- Draws a cost from the hold, then from the balance (the hold was swept while the gateway seemed dead), and what
-- neither covers is the operator's loss. Gives the three parts, with `loss` in the last.
local function draw(cost, loss)
    if cost == '0' then
        return '0', '0', loss
    end
    if call('HINCRBY', holds, gateway, '-' .. cost) >= 0 then
        call('HINCRBY', purse, 'held', '-' .. cost)
        return cost, '0', loss
    end
    local short = call('HGET', holds, gateway):sub(2)
    call('HDEL', holds, gateway)
    local from_hold = scratch(cost, '-' .. short)
    if from_hold ~= '0' then
        call('HINCRBY', purse, 'held', '-' .. from_hold)
    end
    local from_avail = short
    if call('HINCRBY', purse, 'avail', '-' .. short) < 0 then
        local uncovered = call('HGET', purse, 'avail'):sub(2)
        call('HSET', purse, 'avail', '0')
        from_avail = scratch(short, '-' .. uncovered)
        loss = scratch(loss, uncovered)
    end
    return from_hold, from_avail, loss
end

-- Sums of what is added to one field each; amounts too long to be summed here move at once.
local incomes, takes, lines = {}, 0, {}
local function income_add(supplier, amount)
    if #amount > SUMMED_DIGITS then
        call('HINCRBY', purse, 'sup:' .. supplier .. ':pending', amount)
    else
        incomes[supplier] = (incomes[supplier] or 0) + tonumber(amount)
    end
end
local function take_add(amount)
    if #amount > SUMMED_DIGITS then
        call('HINCRBY', purse, 'plat:revenue', amount)
    else
        takes = takes + tonumber(amount)
    end
end
local function line_add(line, gpu_ms, charged)
    local sum = lines[line]
    if not sum then
        sum = {n = 0, ms = 0, usd = 0}
        lines[line] = sum
    end
    sum.n = sum.n + (is_slice and 0 or 1)
    if #gpu_ms > SUMMED_DIGITS then
        call('HINCRBY', KEYS[5], line .. '\31ms', gpu_ms)
    else
        sum.ms = sum.ms + tonumber(gpu_ms)
    end
    if #charged > SUMMED_DIGITS then
        call('HINCRBY', KEYS[5], line .. '\31usd', charged)
    else
        sum.usd = sum.usd + tonumber(charged)
    end
end

local chain = call('GET', KEYS[7]) or ''
local function post(id, at_ms, kind, entries) -- entries: account, sign, amount each
    local entry = {id, at_ms, kind}
    for n = 1, #entries, 3 do
        if entries[n + 2] ~= '0' then
            entry[#entry + 1] = entries[n]
            entry[#entry + 1] = entries[n + 1] .. entries[n + 2]
        end
    end
    if #entry > 3 then
        local content = table.concat(entry, '\31')
        chain = redis.sha1hex(chain .. content)
        call('XADD', KEYS[6], '*', 'd', content, 'h', chain)
    end
end

local rows, refunds = {}, {}
local function row_add(row, charged)
    rows[#rows + 1] = 'r'
    rows[#rows + 1] = row .. '\31' .. charged
end
for _, at in ipairs(fresh) do
    local id, at_ms, cost, loss, income, take, supplier, line, gpu_ms, row, kind = unpack(ARGV, at, at + FIELDS - 1)
    local charged = cost
    if kind == 'refund' then
        refunds[#refunds + 1] = at
    else
        if cost ~= '0' or loss ~= '0' then
            local from_hold, from_avail = cost, '0'
            local lost_to = kind == 'check' and 'plat:checks' or 'plat:loss'
            if not is_covered then
                from_hold, from_avail, loss = draw(cost, loss)
            end
            charged = from_hold
            if from_avail ~= '0' then
                charged = scratch(from_hold, from_avail)
            end
            if charged ~= cost then
                call('HSET', KEYS[9], id, charged)
                call('EXPIRE', KEYS[9], ARGV[3])
            end
            income_add(supplier, income)
            take_add(take)
            if loss ~= '0' then
                call('HINCRBY', purse, lost_to, '-' .. loss)
            end
            post(id, at_ms, kind, {'held', '-', from_hold, 'avail', '-', from_avail,
                                   'sup:' .. supplier .. ':pending', '', income, 'plat:revenue', '', take,
                                   lost_to, '-', loss})
        end
        if line ~= '' then
            line_add(line, gpu_ms, charged)
        end
        row_add(row, charged)
    end
end

for supplier, sum in pairs(incomes) do
    if sum > 0 then
        call('HINCRBY', purse, 'sup:' .. supplier .. ':pending', text(sum))
    end
end
if takes > 0 then
    call('HINCRBY', purse, 'plat:revenue', text(takes))
end
for line, sum in pairs(lines) do
    call('HINCRBY', KEYS[5], line .. '\31n', text(sum.n))
    call('HINCRBY', KEYS[5], line .. '\31ms', text(sum.ms))
    call('HINCRBY', KEYS[5], line .. '\31usd', text(sum.usd))
end

-- Takes up to an amount from what the supplier has here and was not paid yet. Gives what it took and what was missing.
local function take_from(account, amount)
    if amount == '0' or call('HINCRBY', purse, account, '-' .. amount) >= 0 then
        return amount, '0'
    end
    local missing = call('HGET', purse, account):sub(2)
    call('HSET', purse, account, '0')
    return scratch(amount, '-' .. missing), missing
end

local function minus(a, b)
    return b == '0' and a or scratch(a, '-' .. b)
end
local function move(account, sign, amount)
    if amount ~= '0' then
        call('HINCRBY', purse, account, sign .. amount)
    end
end

-- Gives back what the call was charged, out of what the supplier and the platform got for it (what the supplier has no
-- more is the platform's loss), and then fines the supplier. A call that is not in these books is not given back.
for _, at in ipairs(refunds) do
    local id, at_ms, cost, loss, income, take, supplier, line, _, row, _, penalty = unpack(ARGV, at, at + FIELDS - 1)
    local of, account = id:match('^refund:(.*)$'), 'sup:' .. supplier .. ':pending'
    if of and call('SISMEMBER', KEYS[3], of) == 1 then
        local charged = call('HGET', KEYS[9], of) or cost
        local taken, missing = take_from(account, income)
        local fined = take_from(account, penalty)
        local returned = minus(minus(scratch(cost, loss), charged), missing) -- what the platform bore, or bears now
        move('avail', '', charged)
        move('plat:revenue', '-', take)
        move('plat:loss', '', returned)
        move('plat:penalties', '', fined)
        if charged ~= '0' then
            call('HINCRBY', KEYS[5], line .. '\31usd', '-' .. charged)
        end
        post(id, at_ms, 'refund', {'avail', '', charged, account, '-', taken, 'plat:revenue', '-', take,
                                   'plat:loss', '', returned})
        post('penalty:' .. of, at_ms, 'penalty', {account, '-', fined, 'plat:penalties', '', fined})
        row_add(row, charged == '0' and '0' or '-' .. charged)
    end
end

if #rows > 0 then
    call('XADD', KEYS[4], '*', unpack(rows))
end
call('SET', KEYS[7], chain)
return #fresh
