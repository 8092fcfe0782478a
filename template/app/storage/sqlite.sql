-- Everything that the SQLite store says to the database. Each statement is named; times are
-- microseconds since the epoch, money is nano-dollars.

-- name: migration_1
CREATE TABLE rate_event (
    caller TEXT NOT NULL,
    at INTEGER NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (caller, at, operation_id)
) WITHOUT ROWID;
CREATE TABLE rate_count (
    caller TEXT PRIMARY KEY,
    used INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX rate_count_expires_at ON rate_count (expires_at);
CREATE TABLE claim (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done')),
    reply BLOB,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX claim_expires_at ON claim (expires_at);
CREATE TABLE budget (
    day TEXT NOT NULL,
    caller TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, caller)
) WITHOUT ROWID;
-- `cost` is unknown until the operation is settled.
CREATE TABLE operation (
    id TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    day TEXT NOT NULL,
    admitted_at INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    cost INTEGER
) WITHOUT ROWID;
CREATE INDEX operation_day ON operation (day);
-- The charges of all settled operations, added up by day, caller and model.
CREATE TABLE spent (
    day TEXT NOT NULL,
    caller TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, caller, provider, model)
) WITHOUT ROWID;
CREATE TABLE summary (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX summary_expires_at ON summary (expires_at);
PRAGMA user_version = 1;

-- name: forget_rate_events
DELETE FROM rate_event WHERE caller = :caller AND at <= :expired;

-- name: rate_used
SELECT used FROM rate_count WHERE caller = :caller;

-- name: oldest_rate_event
SELECT at FROM rate_event WHERE caller = :caller ORDER BY at LIMIT 1;

-- name: nth_rate_event
SELECT at FROM rate_event WHERE caller = :caller ORDER BY at LIMIT 1 OFFSET :offset;

-- name: add_rate_event
INSERT INTO rate_event (caller, at, operation_id) VALUES (:caller, :now, :operation_id);

-- name: set_rate_used
INSERT INTO rate_count (caller, used, expires_at) VALUES (:caller, :used, :expires_at)
ON CONFLICT (caller) DO UPDATE SET
    used = excluded.used,
    expires_at = max(expires_at, excluded.expires_at);

-- name: expired_callers
SELECT caller FROM rate_count WHERE expires_at <= :now LIMIT :batch;

-- name: forget_caller_events
DELETE FROM rate_event WHERE caller = :caller;

-- name: forget_caller
DELETE FROM rate_count WHERE caller = :caller;

-- name: find_claim
SELECT fingerprint, operation_id, state, reply, expires_at FROM claim WHERE key = :key;

-- name: put_claim
INSERT INTO claim (key, fingerprint, operation_id, state, expires_at)
VALUES (:key, :fingerprint, :operation_id, 'running', :expires_at)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint,
    operation_id = excluded.operation_id,
    state = 'running',
    reply = NULL,
    expires_at = excluded.expires_at;

-- name: finish_claim
UPDATE claim SET state = 'done', reply = :reply, expires_at = :expires_at
WHERE key = :key AND operation_id = :operation_id AND state = 'running';

-- name: release_claim
DELETE FROM claim WHERE key = :key AND operation_id = :operation_id AND state = 'running';

-- name: budget_of
SELECT settled, settled + reserved FROM budget WHERE day = :day AND caller = :caller;

-- name: add_to_budget
INSERT INTO budget (day, caller, settled, reserved) VALUES (:day, :caller, :settled, :reserved)
ON CONFLICT (day, caller) DO UPDATE SET
    settled = settled + excluded.settled,
    reserved = reserved + excluded.reserved;

-- name: find_operation
SELECT caller, day, reserved, cost FROM operation WHERE id = :id;

-- name: add_operation
INSERT INTO operation (id, caller, day, admitted_at, reserved)
VALUES (:id, :caller, :day, :now, :reserved);

-- name: raise_reservation
UPDATE operation SET reserved = reserved + :amount WHERE id = :id;

-- name: settle_operation
UPDATE operation SET cost = :cost WHERE id = :id AND cost IS NULL;

-- name: add_settled_operation
INSERT INTO operation (id, caller, day, admitted_at, reserved, cost)
VALUES (:id, :caller, :day, :now, 0, 0);

-- name: add_spent
INSERT INTO spent (day, caller, provider, model, calls, input_tokens, output_tokens, cost)
VALUES (:day, :caller, :provider, :model, :calls, :input_tokens, :output_tokens, :cost)
ON CONFLICT (day, caller, provider, model) DO UPDATE SET
    calls = calls + excluded.calls,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cost = cost + excluded.cost;

-- name: spent_on
SELECT caller, provider, model, cost, calls, input_tokens, output_tokens
FROM spent WHERE day = :day ORDER BY caller, provider, model;

-- name: reserved_on
SELECT caller, reserved FROM budget
WHERE day = :day AND caller <> '' AND reserved <> 0 ORDER BY caller;

-- name: find_summary
-- The crossing keeps the order: each wanted key is looked up, the first one first.
SELECT wanted.key, summary.text
FROM json_each(:keys) AS wanted CROSS JOIN summary ON summary.key = wanted.value
WHERE summary.expires_at > :now
ORDER BY wanted.key LIMIT 1;

-- name: put_summary
INSERT INTO summary (key, text, expires_at) VALUES (:key, :text, :expires_at)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, expires_at = excluded.expires_at;

-- name: sweep_claims
DELETE FROM claim WHERE key IN (SELECT key FROM claim WHERE expires_at <= :now LIMIT :batch);

-- name: sweep_summaries
DELETE FROM summary WHERE key IN (SELECT key FROM summary WHERE expires_at <= :now LIMIT :batch);

-- name: sweep_operations
DELETE FROM operation WHERE id IN (SELECT id FROM operation WHERE day < :oldest_day LIMIT :batch);

-- name: sweep_budgets
DELETE FROM budget WHERE (day, caller) IN (
    SELECT day, caller FROM budget WHERE day < :oldest_day LIMIT :batch
);

-- name: sweep_spent
DELETE FROM spent WHERE (day, caller, provider, model) IN (
    SELECT day, caller, provider, model FROM spent WHERE day < :oldest_day LIMIT :batch
);
