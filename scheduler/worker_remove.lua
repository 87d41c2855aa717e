-- worker_remove.lua: forgets a worker; its receipts go a while later.
-- KEYS: the worker's hash, its list of proofs. ARGV: seconds that the receipts stay. Answers 1, or 0 when there was none.
redis.call('EXPIRE', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
