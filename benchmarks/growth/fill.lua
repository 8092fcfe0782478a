-- What a Redis store holds after one settled call on one day of the callers from `first` to `last`.
--
-- KEYS  one of the service's keys
-- ARGV  as named below; `span` is empty on a day whose windows are over

local prefix, day, first, last = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now, span, ledger_seconds, settled_seconds = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local reserved, cost, input_tokens, output_tokens = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local provider, model = ARGV[13], ARGV[14]

local budget, spent = prefix .. 'budget:' .. day, prefix .. 'spent:' .. day
for number = first, last do
  local caller = string.format('caller-%07d', number)
  if span ~= '' then
    local window = prefix .. 'rate:' .. caller
    redis.call('RPUSH', window, now)
    redis.call('PEXPIRE', window, span / 1000 + 10000)
    -- Of earlier days all operations are forgotten.
    local operation = prefix .. 'operation:' .. redis.sha1hex(caller)
    redis.call('HSET', operation, 'day', day, 'caller', caller, 'reserved', reserved, 'cost', cost)
    redis.call('EXPIRE', operation, settled_seconds)
  end
  redis.call('HSET', budget, 'settled ' .. caller, cost, 'reserved ' .. caller, 0)
  local what = string.format('["%s","%s","%s"]', caller, provider, model)
  redis.call('HSET', spent, 'cost ' .. what, cost, 'calls ' .. what, 1,
    'input_tokens ' .. what, input_tokens, 'output_tokens ' .. what, output_tokens)
end
redis.call('HINCRBY', budget, 'settled', (last - first + 1) * cost)
redis.call('HINCRBY', budget, 'reserved', 0)
redis.call('EXPIRE', budget, ledger_seconds)
redis.call('EXPIRE', spent, ledger_seconds)
