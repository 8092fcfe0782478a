-- The same for PostgreSQL, in the schema that the search path names.

-- name: known
CREATE TEMP TABLE known AS
SELECT day, 'caller-' || lpad(n::text, 7, '0') AS caller, md5(day || n) AS id
FROM unnest(%(days)s::text[]) AS day CROSS JOIN generate_series(0, %(callers)s - 1) AS n

-- name: rate_event
INSERT INTO rate_event (caller, at) SELECT caller, %(now)s FROM known WHERE day = %(today)s

-- name: rate_count
INSERT INTO rate_count (caller, used, expires_at)
SELECT caller, 1, ((%(now)s + %(window)s) / 60000000 + 1) * 60000000
FROM known WHERE day = %(today)s

-- name: budget
INSERT INTO budget (day, caller, settled, reserved) SELECT day, caller, %(cost)s, 0 FROM known

-- name: everyone
INSERT INTO budget (day, caller, settled, reserved)
SELECT day, '', count(*) * %(cost)s, 0 FROM known GROUP BY day

-- name: operation
INSERT INTO operation (id, caller, day, admitted_at, reserved, cost)
SELECT id, caller, day, %(now)s, %(reserved)s, %(cost)s FROM known

-- name: spent
INSERT INTO spent (day, caller, provider, model, calls, input_tokens, output_tokens, cost)
SELECT day, caller, %(provider)s, %(model)s, 1, %(input_tokens)s, %(output_tokens)s, %(cost)s
FROM known

-- name: drop_known
DROP TABLE known

-- name: analyze
-- As the server does by itself in a minute or so.
VACUUM ANALYZE rate_event, rate_count, budget, operation, spent
