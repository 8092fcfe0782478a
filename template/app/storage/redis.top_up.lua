-- One more worst case for an operation that is open: 1 when it is set aside, 0 when not.
--
-- KEYS  the operation
-- ARGV  as named below

local operation_key = KEYS[1]
local amount, day_limit, caller_limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local budget_prefix, ledger_seconds = ARGV[4], ARGV[5]

local operation = redis.call('HMGET', operation_key, 'day', 'caller', 'cost')
local day, caller, cost = operation[1], operation[2], operation[3]
if not day or cost then
  return 0
end

local budget_key = budget_prefix .. day
local found = redis.call('HMGET', budget_key,
  'settled', 'reserved', 'settled ' .. caller, 'reserved ' .. caller)
if (found[1] or 0) + (found[2] or 0) + amount > day_limit
  or (found[3] or 0) + (found[4] or 0) + amount > caller_limit then
  return 0
end

redis.call('HINCRBY', budget_key, 'reserved', amount)
redis.call('HINCRBY', budget_key, 'reserved ' .. caller, amount)
redis.call('EXPIRE', budget_key, ledger_seconds)
redis.call('HINCRBY', operation_key, 'reserved', amount)
return 1
