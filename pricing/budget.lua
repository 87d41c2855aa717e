-- budget.lua: counts settled costs in one period of an API key's budget, each once by the record's id. What running
-- calls spent beyond the hold makes avail smaller, below zero at last: a budget is a limit, the money is the balance's.
--
-- KEYS  1 purse: hash limit, avail, held, spent    2 holds: hash gateway -> amount    3 seen: set of record ids
-- ARGV  1 gateway    2 seconds to keep all this for    then a record each: id cost
-- Gives the number of records that were new.
local call = redis.call
local purse, holds, gateway = KEYS[1], KEYS[2], ARGV[1]
local fresh = 0

for i = 3, #ARGV, 2 do
    local cost = ARGV[i + 1]
    if call('SADD', KEYS[3], ARGV[i]) == 1 then
        fresh = fresh + 1
        if cost ~= '0' then
            call('HINCRBY', purse, 'spent', cost)
            call('HINCRBY', purse, 'held', '-' .. cost)
            if call('HINCRBY', holds, gateway, '-' .. cost) < 0 then
                local short = call('HGET', holds, gateway):sub(2)
                call('HDEL', holds, gateway)
                call('HINCRBY', purse, 'held', short)
                call('HINCRBY', purse, 'avail', '-' .. short)
            end
        end
    end
end
for i = 1, 3 do
    call('EXPIRE', KEYS[i], ARGV[2])
end
return fresh
