-- What a SQLite store holds after one settled call of each caller on each day. `known` has a row for
-- each of these calls; `:days` is a JSON list, the last day is that of `:now`.

-- name: known
CREATE TEMP TABLE known AS
WITH RECURSIVE number (n) AS (
    SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :callers
)
SELECT days.value AS day, printf('caller-%07d', n) AS caller, lower(hex(randomblob(16))) AS id
FROM json_each(:days) AS days CROSS JOIN number;

-- name: rate_event
-- Earlier days' windows are over and gone.
INSERT INTO rate_event (caller, at, operation_id)
SELECT caller, :now, id FROM known WHERE day = :today ORDER BY caller;

-- name: rate_count
INSERT INTO rate_count (caller, used, expires_at)
SELECT caller, 1, :now + :window FROM known WHERE day = :today ORDER BY caller;

-- name: budget
INSERT INTO budget (day, caller, settled, reserved)
SELECT day, caller, :cost, 0 FROM known ORDER BY day, caller;

-- name: everyone
INSERT INTO budget (day, caller, settled, reserved)
SELECT day, '', count(*) * :cost, 0 FROM known GROUP BY day;

-- name: operation
INSERT INTO operation (id, caller, day, admitted_at, reserved, cost)
SELECT id, caller, day, :now, :reserved, :cost FROM known ORDER BY id;

-- name: spent
INSERT INTO spent (day, caller, provider, model, calls, input_tokens, output_tokens, cost)
SELECT day, caller, :provider, :model, 1, :input_tokens, :output_tokens, :cost FROM known
ORDER BY day, caller;

-- name: drop_known
DROP TABLE known;
