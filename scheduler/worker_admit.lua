-- worker_admit.lua: moves a worker's admission if nobody else has moved it meanwhile.
-- KEYS: the worker's hash. ARGV: expected token, new token, then fields (name, value, ...).
-- Answers 'ok', 'missing' or 'token'. Tokens are compared as text: they may pass 2^53.
local key = KEYS[1]
local token = redis.call('HGET', key, 'token')
if not token then
    return 'missing'
end
if token ~= ARGV[1] then
    return 'token'
end
redis.call('HSET', key, 'token', unpack(ARGV, 2))
return 'ok'
