-- Settlement in one step: what becomes of the claim, and the cost in place of the reservation.
--
-- As in admission, all is read before anything is written, so that an error leaves nothing behind.
--
-- KEYS  the operation, the claim if there is one
-- ARGV  as named below; then for each charge: whose it is and for which model, cost, calls, input
--       and output tokens
-- Returns the day's figures, or nothing when there was no reservation to settle.

local operation_key, claim_key = KEYS[1], KEYS[2]
local now = tonumber(ARGV[1]) -- empty unless a test sets the clock
local outcome, reply, ttl = ARGV[2], ARGV[3], tonumber(ARGV[4])
local cost = ARGV[5]
local budget_prefix, spent_prefix, ledger_seconds, settled_seconds = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local FIRST_CHARGE = 10

local KEPT_BEYOND_MS = 10000 -- as in admission

local operation = redis.call('HMGET', operation_key, 'day', 'caller', 'reserved', 'cost')
local day, caller, reserved, is_settled = operation[1], operation[2], operation[3], operation[4]
local budget_key, spent_key = budget_prefix .. (day or ''), spent_prefix .. (day or '')
local claim = claim_key and redis.call('HMGET', claim_key, 'owner', 'done')
if day then
  -- While a cluster moves the keys, one that is elsewhere is an error here, before the first write.
  redis.call('EXISTS', budget_key)
  redis.call('EXISTS', spent_key)
end

if claim and claim[1] == operation_key and not claim[2] then
  if outcome == 'release' then
    redis.call('DEL', claim_key)
  else
    if not now then
      local clock = redis.call('TIME')
      now = clock[1] * 1000000 + clock[2]
    end
    redis.call('HSET', claim_key, 'done', 1, 'expires_at', string.format('%.0f', now + ttl))
    if outcome == 'done' then
      redis.call('HSET', claim_key, 'reply', reply)
    end
    redis.call('PEXPIRE', claim_key, string.format('%.0f', math.ceil(ttl / 1000) + KEPT_BEYOND_MS))
  end
end

if is_settled then
  return false
end
-- Without a day its admission may be on its way yet: then it finds itself settled, at nothing.
redis.call('HSET', operation_key, 'cost', day and cost or 0)
redis.call('EXPIRE', operation_key, settled_seconds)
if not day then
  return false
end

redis.call('HINCRBY', budget_key, 'settled', cost)
redis.call('HINCRBY', budget_key, 'settled ' .. caller, cost)
if reserved ~= '0' then -- there is no integer -0
  redis.call('HINCRBY', budget_key, 'reserved', '-' .. reserved)
  redis.call('HINCRBY', budget_key, 'reserved ' .. caller, '-' .. reserved)
end
redis.call('EXPIRE', budget_key, ledger_seconds)
for index = FIRST_CHARGE, #ARGV, 5 do
  local what = ARGV[index]
  redis.call('HINCRBY', spent_key, 'cost ' .. what, ARGV[index + 1])
  redis.call('HINCRBY', spent_key, 'calls ' .. what, ARGV[index + 2])
  redis.call('HINCRBY', spent_key, 'input_tokens ' .. what, ARGV[index + 3])
  redis.call('HINCRBY', spent_key, 'output_tokens ' .. what, ARGV[index + 4])
end
if #ARGV >= FIRST_CHARGE then
  redis.call('EXPIRE', spent_key, ledger_seconds)
end

local found = redis.call('HMGET', budget_key,
  'settled', 'reserved', 'settled ' .. caller, 'reserved ' .. caller)
return {day, found[1] or '0', found[2] or '0', found[3] or '0', found[4] or '0'}
