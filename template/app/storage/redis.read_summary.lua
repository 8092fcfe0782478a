-- The first of the summaries that there are.
--
-- KEYS  the wanted ones, first choice first
-- ARGV  the clock that a test sets; empty for Redis' own, which knows what is over
-- Returns its place from 0 and its text, or false.

local now = tonumber(ARGV[1])
for place, key in ipairs(KEYS) do
    local found = redis.call('GET', key)
    if found then
        local blank = string.find(found, ' ', 1, true)
        if not now or tonumber(string.sub(found, 1, blank - 1)) > now then
            return {place - 1, string.sub(found, blank + 1)}
        end
    end
end
return false
