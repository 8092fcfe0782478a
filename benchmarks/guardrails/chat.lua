-- A caller of a chat endpoint, for wrk. Arguments: the body, the keys of the callers who take turns
-- with commas between them, what each Idempotency-Key begins with, or "" for none, and lines of
-- further headers. In the end one line of JSON, times in microseconds.

local heads, body, prefix = {}, "", ""
local number = 0

function init(args)
  body, prefix = args[1], args[3]
  local further = ""
  for line = 4, #args do
    further = further .. "\r\n" .. args[line]
  end
  for key in args[2]:gmatch("[^,]+") do
    heads[#heads + 1] = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
      .. "\r\nAuthorization: Bearer " .. key .. further
      .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #body
  end
end

function request()
  number = number + 1
  local head = heads[number % #heads + 1]
  if prefix ~= "" then
    head = head .. "\r\nIdempotency-Key: " .. prefix .. number
  end
  return head .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "not_ok": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
