-- worker_put.lua: stores a new worker, or the declared fields of a known one.
-- KEYS: the worker's hash. ARGV: secret's hash, how many words of declared fields follow, the declared fields (name,
-- value, ...), then those that only a new worker gets: none, and it must be there.
-- Answers 'new', 'changed', 'same', 'secret' (another worker's id) or 'missing'.
local key = KEYS[1]
local secret = redis.call('HGET', key, 'secret_sha256')
local declared = tonumber(ARGV[2])
if not secret and #ARGV == declared + 2 then
    return 'missing'
end
if not secret then
    local fields = {'secret_sha256', ARGV[1]}
    for i = 3, #ARGV do
        fields[#fields + 1] = ARGV[i]
    end
    redis.call('HSET', key, unpack(fields))
    return 'new'
end
if secret ~= ARGV[1] then
    return 'secret'
end
local answer = 'same'
for i = 3, declared + 2, 2 do
    if redis.call('HGET', key, ARGV[i]) ~= ARGV[i + 1] then
        redis.call('HSET', key, ARGV[i], ARGV[i + 1])
        answer = 'changed'
    end
end
return answer
