-- worker_admit.lua: moves a worker's admission if nobody else has moved it meanwhile, and stores what came of a proof.
-- KEYS: the worker's hash, the list of its receipts. ARGV: expected token, new token, the hash of the newest receipt that
-- those to come were made after, how many receipts are kept, for how many ms, how many come, the receipts (oldest
-- first), then fields (name, value, ...).
-- Answers 'ok', 'missing' or 'token' (also when another receipt has come first). Tokens are compared as text: they may
-- pass 2^53. A receipt is kept as 'number at_ms text', newest first.
local key, list = KEYS[1], KEYS[2]
local have = redis.call('HMGET', key, 'token', 'proof_receipt_sha256')
if not have[1] then
    return 'missing'
end
local most, life, count = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if have[1] ~= ARGV[1] or (count > 0 and (have[2] or '') ~= ARGV[3]) then
    return 'token'
end
if count > 0 then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    for i = 7, 6 + count do
        local number = redis.call('HINCRBY', key, 'receipts', 1)
        redis.call('LPUSH', list, string.format('%.0f %.0f ', number, now) .. ARGV[i])
    end
    redis.call('LTRIM', list, 0, most - 1)
    for _ = 1, most do
        local oldest = redis.call('LINDEX', list, -1)
        if now - tonumber(string.match(oldest, '^%d+ (%d+) ')) < life then
            break -- the one just pushed, at last
        end
        redis.call('RPOP', list)
    end
    redis.call('PEXPIRE', list, ARGV[5])
end
redis.call('HSET', key, 'token', ARGV[2], unpack(ARGV, 7 + count))
return 'ok'
