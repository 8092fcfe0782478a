-- Both hashes of a day as they are at one moment.
--
-- KEYS  the day's budget, what was spent in it

return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
