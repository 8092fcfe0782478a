-- The tables, as this service first had them. Times are microseconds since the epoch, money is
-- nano-dollars. Text is compared by its bytes, whatever the database's own order is.
--
-- Repeating a migration does no harm: that is how a schema is made whole again.

-- The requests in each caller's window.
CREATE TABLE IF NOT EXISTS rate_event (
    caller text COLLATE "C" NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS rate_event_caller_at ON rate_event (caller, at);

-- How many those are. What changes with each request leaves room in its page, so that its indexes
-- need not change too.
CREATE TABLE IF NOT EXISTS rate_count (
    caller text COLLATE "C" PRIMARY KEY,
    used integer NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS rate_count_expires_at ON rate_count (expires_at);

CREATE TABLE IF NOT EXISTS claim (
    key text COLLATE "C" PRIMARY KEY,
    fingerprint text NOT NULL,
    operation_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'done')),
    reply bytea,
    expires_at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS claim_expires_at ON claim (expires_at);

-- The empty caller is everyone.
CREATE TABLE IF NOT EXISTS budget (
    day text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    settled bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, caller)
) WITH (fillfactor = 50);

-- `cost` is unknown until the operation is settled, `admitted_at` if it was settled before it came.
CREATE TABLE IF NOT EXISTS operation (
    id text COLLATE "C" PRIMARY KEY,
    caller text COLLATE "C" NOT NULL,
    day text COLLATE "C" NOT NULL,
    admitted_at bigint,
    reserved bigint NOT NULL,
    cost bigint
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS operation_day ON operation (day);

-- The charges of all settled operations, added up by day, caller and model.
CREATE TABLE IF NOT EXISTS spent (
    day text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost bigint NOT NULL,
    PRIMARY KEY (day, caller, provider, model)
) WITH (fillfactor = 70);

-- In UTF-8: `text` can hold no NUL, and a model may write one.
CREATE TABLE IF NOT EXISTS summary (
    key text COLLATE "C" PRIMARY KEY,
    content bytea NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS summary_expires_at ON summary (expires_at);

-- One row: the latest migration, and a digest of the functions that stand in the schema.
CREATE TABLE IF NOT EXISTS installed (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    functions text NOT NULL
);
