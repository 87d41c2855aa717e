-- proof_list.lua: a worker's receipts, newest first.
-- KEYS: the list. ARGV: number of the receipt that they must be older than (0: any), how many, for how many ms they are
-- kept.
-- Answers the entries ('number at_ms text'), at most one more than asked for, which says that there are others.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local newest = redis.call('LINDEX', KEYS[1], 0)
if not newest then
    return {}
end
local before, from = tonumber(ARGV[1]), 0
if before > 0 then -- numbers count down along the list
    from = math.max(0, tonumber(string.match(newest, '^(%d+) ')) - before + 1)
end
local found = {}
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], from, from + tonumber(ARGV[2]))) do
    if now - tonumber(string.match(entry, '^%d+ (%d+) ')) < tonumber(ARGV[3]) then
        found[#found + 1] = entry
    end
end
return found
