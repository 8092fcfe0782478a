-- Admission in one step: first the rate limit, then the claim, then the budget.
--
-- All is read before anything is written, and a refusal writes nothing. An error can thus come only
-- before the first write: out of memory, read-only, or a cluster that is moving the keys.
-- Times are microseconds and amounts nano-dollars: whole numbers, which Lua's doubles hold exactly up
-- to 2^53 (the year 2255, nine million dollars). What may grow beyond is added up by Redis itself.
--
-- KEYS  the caller's window, the operation, the claim if there is one
-- ARGV  as named below; then, for a reservation, name and end of each day that it may fall on

local window_key, operation_key, claim_key = KEYS[1], KEYS[2], KEYS[3]
local now = tonumber(ARGV[1]) -- empty unless a test sets the clock
local limit, span = tonumber(ARGV[2]), tonumber(ARGV[3])
local fingerprint, lease, takes_over = ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local amount, day_limit, caller_limit = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local caller, budget_prefix, ledger_seconds = ARGV[10], ARGV[11], ARGV[12]
local FIRST_DAY = 13

-- Redis forgets a key this long after its time is over, which is judged here, to the microsecond:
-- a settlement that comes after its lease still finds its claim.
local KEPT_BEYOND_MS = 10000

if not now then
  local clock = redis.call('TIME')
  now = clock[1] * 1000000 + clock[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local function expire(key, microseconds)
  redis.call('PEXPIRE', key, whole(math.ceil(microseconds / 1000) + KEPT_BEYOND_MS))
end

-- The window is the list of the times at which places in it were taken, oldest first.

local function taken_at(index)
  return tonumber(redis.call('LINDEX', window_key, index))
end

-- How many places were taken at this moment or before. Few or none have expired as a rule, so the
-- search begins with them.
local function count_until(moment)
  local function is_until(index)
    return (taken_at(index) or math.huge) <= moment
  end
  local low, high = 0, 1
  while is_until(high - 1) do
    low, high = high, high * 2
  end
  high = high - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_until(middle) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local size = redis.call('LLEN', window_key)
local expired = size > 0 and count_until(now - span) or 0
local used = size - expired
local reset = used > 0 and taken_at(expired) + span - now or span

local function take_place()
  local latest = used > 0 and taken_at(-1) or now
  if latest > now then -- the clock was set back
    local later = redis.call('LINDEX', window_key, count_until(now))
    redis.call('LINSERT', window_key, 'BEFORE', later, whole(now))
  else
    redis.call('RPUSH', window_key, whole(now))
  end
  if expired > 0 then
    redis.call('LTRIM', window_key, expired, -1)
  end
  expire(window_key, math.max(latest, now) + span - now)
  used = used + 1
end

-- The day's figures: settled and reserved of all callers, then of this one. They are strings, so
-- that none is rounded on its way to the service.
local function figures(day)
  local found = redis.call('HMGET', budget_prefix .. day,
    'settled', 'reserved', 'settled ' .. caller, 'reserved ' .. caller)
  return {day, found[1] or '0', found[2] or '0', found[3] or '0', found[4] or '0'}
end

local function answer(decision, wait, budget, reply)
  return {decision, used, reset, wait or 0, budget or false, reply or false}
end

local operation = redis.call('HMGET', operation_key, 'day', 'cost')
if operation[1] then
  return answer('admitted', 0, figures(operation[1]))
elseif operation[2] then -- settled before it came
  return answer('admitted')
end

if used >= limit then
  -- More than the limit are on record when the owner has lowered it.
  return answer('rate', taken_at(size - limit) + span - now)
end

if claim_key and not takes_over then
  local held = redis.call('HMGET', claim_key, 'fingerprint', 'expires_at', 'done')
  if held[1] and tonumber(held[2]) > now then
    if held[1] ~= fingerprint then
      return answer('key_reused')
    elseif not held[3] then
      return answer('in_flight', held[2] - now)
    end
    local reply = redis.call('HGET', claim_key, 'reply')
    if not reply then
      return answer('reply_not_stored')
    end
    take_place()
    return answer('replay', 0, nil, reply)
  end
end

local day
if amount ~= '' then
  local ends_at
  for index = FIRST_DAY, #ARGV, 2 do -- the nearest day when the clock is outside of all
    day, ends_at = ARGV[index], tonumber(ARGV[index + 1])
    if now < ends_at then
      break
    end
  end
  local budget = figures(day)
  if budget[2] + budget[3] + amount > day_limit then
    return answer('budget', ends_at - now, budget)
  elseif budget[4] + budget[5] + amount > caller_limit then
    return answer('caller_budget', ends_at - now, budget)
  end
end

take_place()
if claim_key then
  redis.call('DEL', claim_key)
  redis.call('HSET', claim_key, 'fingerprint', fingerprint, 'owner', operation_key,
    'expires_at', whole(now + lease))
  expire(claim_key, lease)
end
if not day then
  return answer('admitted')
end
redis.call('HINCRBY', budget_prefix .. day, 'reserved', amount)
redis.call('HINCRBY', budget_prefix .. day, 'reserved ' .. caller, amount)
redis.call('EXPIRE', budget_prefix .. day, ledger_seconds)
redis.call('HSET', operation_key, 'day', day, 'caller', caller, 'reserved', amount)
redis.call('EXPIRE', operation_key, ledger_seconds)
return answer('admitted', 0, figures(day))
