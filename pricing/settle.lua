-- settle.lua: moves usage records of one tenant, one gateway and one UTC day into the ledger, each once by its id.
--
-- KEYS  1 purse: hash avail, held, sup:<supplier>:pending, plat:revenue, plat:loss, ext:psp; their sum is zero
--       2 holds: hash gateway -> amount    3 seen: set of record ids of that day    4 usage rows of that day: stream,
--       an entry a call with a field r for each row
--       5 invoice lines of that month: hash    6 ledger: stream    7 chain: hash of its last entry    8 days: set
-- ARGV  1 gateway    2 day    3 seconds to remember ids for    then a record each:
--       id at_ms cost loss income take supplier line gpu_ms row
--       cost + loss = income (the supplier's) + take (ours); line "" keeps the record off the invoice.
-- Gives the number of records that were new.
--
-- Amounts are decimal strings and move by HINCRBY. Numbers in Lua are exact below 2^53 only: those of at most 14 digits
-- are summed here (a batch is at most 64 records), longer ones move one by one.
local call = redis.call
local purse, holds, gateway = KEYS[1], KEYS[2], ARGV[1]
local FIELDS = 10
local SUMMED_DIGITS = 14

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
    if #ARGV[at + 2] > SUMMED_DIGITS then
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
    sum.n = sum.n + 1
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
local function post(id, at_ms, from_hold, from_avail, loss, income, take, supplier)
    local entry = {id, at_ms, 'usage'}
    local function put(account, sign, amount)
        if amount ~= '0' then
            entry[#entry + 1] = account
            entry[#entry + 1] = sign .. amount
        end
    end
    put('held', '-', from_hold)
    put('avail', '-', from_avail)
    put('sup:' .. supplier .. ':pending', '', income)
    put('plat:revenue', '', take)
    put('plat:loss', '-', loss)
    if #entry > 3 then
        local content = table.concat(entry, '\31')
        chain = redis.sha1hex(chain .. content)
        call('XADD', KEYS[6], '*', 'd', content, 'h', chain)
    end
end

local rows = {}
for n, at in ipairs(fresh) do
    local id, at_ms, cost, loss, income, take, supplier, line, gpu_ms, row = unpack(ARGV, at, at + FIELDS - 1)
    local charged = cost
    if cost ~= '0' or loss ~= '0' then
        local from_hold, from_avail = cost, '0'
        if not is_covered then
            from_hold, from_avail, loss = draw(cost, loss)
        end
        charged = from_hold
        if from_avail ~= '0' then
            charged = scratch(from_hold, from_avail)
        end
        income_add(supplier, income)
        take_add(take)
        if loss ~= '0' then
            call('HINCRBY', purse, 'plat:loss', '-' .. loss)
        end
        post(id, at_ms, from_hold, from_avail, loss, income, take, supplier)
    end
    if line ~= '' then
        line_add(line, gpu_ms, charged)
    end
    rows[2 * n - 1] = 'r'
    rows[2 * n] = row .. '\31' .. charged
end

call('XADD', KEYS[4], '*', unpack(rows))
call('SET', KEYS[7], chain)
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
return #fresh
