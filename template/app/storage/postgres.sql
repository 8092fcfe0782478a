-- Everything that the PostgreSQL store says to the server, by name: statements, and the functions
-- that they call. Each statement is a transaction of its own and one round trip.
--
-- Locks are taken in one order, so that nothing waits in a circle: the caller's, the claim's, and
-- last, for as short as possible, the budget row of everyone. Whoever holds a caller's lock has all
-- of its rows to itself. These locks are advisory and end with their transaction: they need no row,
-- so that of two first requests one waits for the other. Sweeps wait for nobody.

-- name: admit
SELECT * FROM {schema}.admit(
    %(operation_id)s, %(caller)s, %(limit)s, %(window)s,
    %(claim_key)s, %(fingerprint)s, %(lease)s, %(takes_over)s,
    %(amount)s, %(cap)s, %(caller_cap)s, %(day_names)s::text[], %(day_ends)s::bigint[],
    %(now)s, %(wait_ms)s
)

-- name: top_up
SELECT {schema}.top_up(%(operation_id)s, %(amount)s, %(cap)s, %(caller_cap)s, %(wait_ms)s)

-- name: settle
SELECT * FROM {schema}.settle(
    %(operation_id)s, %(caller)s,
    %(providers)s::text[], %(models)s::text[], %(calls)s::bigint[],
    %(input_tokens)s::bigint[], %(output_tokens)s::bigint[], %(costs)s::bigint[],
    %(claim_key)s, %(done)s, %(reply)s, %(reply_ttl)s, %(now)s, %(wait_ms)s
)

-- name: day_book
SELECT caller, provider, model, cost, calls, input_tokens, output_tokens, NULL AS reserved
FROM {schema}.spent WHERE day = %(day)s
UNION ALL
SELECT caller, NULL, NULL, NULL, NULL, NULL, NULL, reserved
FROM {schema}.budget WHERE day = %(day)s AND caller <> '' AND reserved <> 0
ORDER BY caller, provider, model

-- name: find_summary
SELECT wanted.place - 1, summary.content
FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS wanted (key, place)
JOIN {schema}.summary AS summary ON summary.key = wanted.key
WHERE summary.expires_at > {schema}.micros(%(now)s)
ORDER BY wanted.place LIMIT 1

-- name: put_summary
INSERT INTO {schema}.summary (key, content, expires_at)
VALUES (%(key)s, %(content)s, {schema}.micros(%(now)s) + %(ttl)s)
ON CONFLICT (key) DO UPDATE SET content = excluded.content, expires_at = excluded.expires_at

-- name: sweep
SELECT {schema}.sweep(%(now)s, %(ledger_days)s, %(batch)s)

-- name: ping
-- Of no row, but asked as one who may write it: a server that is only read any more is no use.
SELECT 1 FROM {schema}.budget WHERE day = '' FOR KEY SHARE

-- name: find_installed
SELECT version, functions FROM {schema}.installed

-- name: lock_schema
SELECT set_config('lock_timeout', %(wait_ms)s, true),
    pg_advisory_xact_lock(hashtextextended(%(name)s || '/schema', 0))

-- name: find_schema
-- From the tables themselves: functions like to_regclass answer from what the session knows, which
-- may be older than the lock.
SELECT
    EXISTS (SELECT FROM pg_namespace WHERE nspname = %(name)s),
    EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %(name)s AND c.relname = 'installed'
    )

-- name: create_schema
CREATE SCHEMA {schema}

-- name: enter_schema
SELECT set_config('search_path', quote_ident(%(name)s) || ', pg_temp', true)

-- name: put_installed
INSERT INTO {schema}.installed (version, functions) VALUES (%(version)s, %(functions)s)
ON CONFLICT (only_row) DO UPDATE SET version = excluded.version, functions = excluded.functions

-- name: functions
-- Each finds its tables by the path that holds while it is made, since behind a pooler there is no
-- session to set one in. Whoever changes what a function takes or returns gives it another name:
-- instances of the version before go on calling the old one.

-- The server's clock, unless a test brings its own.
CREATE OR REPLACE FUNCTION micros(_now bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(_now, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

CREATE OR REPLACE FUNCTION utc_day(_now bigint) RETURNS text LANGUAGE sql AS $$
    SELECT to_char(to_timestamp(_now / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
$$;

CREATE OR REPLACE FUNCTION lock_of(_kind text, _name text) RETURNS bigint LANGUAGE sql AS $$
    SELECT hashtextextended(current_schema() || '/' || _kind || '/' || _name, 0)
$$;

-- Lets the transaction wait for locks until then, and no longer.
CREATE OR REPLACE FUNCTION wait_until(_give_up_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    left_ms integer := ceil(extract(epoch FROM _give_up_at - clock_timestamp()) * 1000);
BEGIN
    PERFORM set_config('lock_timeout', greatest(1, left_ms)::text, true);
END $$;

CREATE OR REPLACE FUNCTION take_lock(_kind text, _name text, _give_up_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In the stricter levels a transaction goes on seeing what was there before it had the lock.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the default_transaction_isolation of this role or database is %: set it'
            ' to read committed, with which limits are exact',
            current_setting('transaction_isolation');
    END IF;
    PERFORM wait_until(_give_up_at);
    PERFORM pg_advisory_xact_lock(lock_of(_kind, _name));
END $$;

-- The day's figures. Those of the caller stand still for whoever holds its lock.
CREATE OR REPLACE FUNCTION budget_of(
    _day text, _caller text,
    OUT settled bigint, OUT committed bigint, OUT caller_committed bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT
        coalesce(max(b.settled) FILTER (WHERE b.caller = ''), 0),
        coalesce(max(b.settled + b.reserved) FILTER (WHERE b.caller = ''), 0),
        coalesce(max(b.settled + b.reserved) FILTER (WHERE b.caller <> ''), 0)
    INTO budget_of.settled, budget_of.committed, budget_of.caller_committed
    FROM budget b WHERE b.day = _day AND b.caller IN ('', _caller);
END $$;

CREATE OR REPLACE FUNCTION take_place(_caller text, _used integer, _window bigint, _now bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rate_event (caller, at) VALUES (_caller, _now);
    -- To the next minute: most requests then leave the index of what expires as it is.
    INSERT INTO rate_count AS c (caller, used, expires_at)
    VALUES (_caller, _used + 1, ((_now + _window) / 60000000 + 1) * 60000000)
    ON CONFLICT (caller) DO UPDATE SET
        used = excluded.used,
        expires_at = greatest(c.expires_at, excluded.expires_at);
END $$;

-- Reserves for everyone, if their cap allows it: then a row comes back.
CREATE OR REPLACE FUNCTION reserve_for_everyone(
    _day text, _amount bigint, _cap bigint, _give_up_at timestamptz,
    OUT settled bigint, OUT committed bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM wait_until(_give_up_at);
    INSERT INTO budget AS b (day, caller, reserved) VALUES (_day, '', _amount)
    ON CONFLICT ON CONSTRAINT budget_pkey DO UPDATE SET reserved = b.reserved + _amount
    WHERE b.settled + b.reserved + _amount <= _cap
    RETURNING b.settled, b.settled + b.reserved
    INTO reserve_for_everyone.settled, reserve_for_everyone.committed;
END $$;

-- Rate limit, claim and budget, in this order and all or nothing. Without `_claim_key` nothing is
-- claimed, without `_amount` nothing is reserved.
CREATE OR REPLACE FUNCTION admit(
    _operation_id text, _caller text, _limit integer, _window bigint,
    _claim_key text, _fingerprint text, _lease bigint, _takes_over boolean,
    _amount bigint, _cap bigint, _caller_cap bigint, _day_names text[], _day_ends bigint[],
    _now bigint, _wait_ms integer,
    OUT decision text, OUT remaining integer, OUT reset_in bigint, OUT retry_in bigint,
    OUT reply bytea,
    OUT day text, OUT settled bigint, OUT committed bigint, OUT caller_committed bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    give_up_at timestamptz := clock_timestamp() + _wait_ms * interval '1 millisecond';
    moment bigint;
    places integer;
    gone integer;
    oldest bigint;
    known operation;
    held claim;
    today integer;
BEGIN
    PERFORM take_lock('caller', _caller, give_up_at);
    IF _claim_key IS NOT NULL THEN
        PERFORM take_lock('claim', _claim_key, give_up_at);
    END IF;
    -- Read behind the locks: who waited for them must not count as having come before.
    moment := micros(_now);

    -- The caller's standing
    DELETE FROM rate_event WHERE caller = _caller AND at <= moment - _window;
    GET DIAGNOSTICS gone = ROW_COUNT;
    places := coalesce((SELECT used FROM rate_count WHERE caller = _caller), 0) - gone;
    oldest := (SELECT at FROM rate_event WHERE caller = _caller ORDER BY at LIMIT 1);
    remaining := greatest(0, _limit - places);
    reset_in := coalesce(oldest + _window - moment, _window);

    SELECT * INTO known FROM operation WHERE id = _operation_id;
    IF FOUND THEN
        -- It owns what it was given; if it was settled before it came, nothing.
        decision := 'admitted';
        IF known.admitted_at IS NOT NULL THEN
            day := known.day;
        END IF;
    ELSIF places >= _limit THEN
        decision := 'rate';
        -- More than the limit are on record when the owner has lowered it.
        retry_in := _window - moment + (
            SELECT at FROM rate_event WHERE caller = _caller
            ORDER BY at OFFSET places - _limit LIMIT 1
        );
    ELSIF _claim_key IS NOT NULL AND NOT _takes_over THEN
        SELECT * INTO held FROM claim WHERE key = _claim_key AND expires_at > moment;
        IF NOT FOUND THEN
            NULL;
        ELSIF held.fingerprint <> _fingerprint THEN
            decision := 'key_reused';
        ELSIF held.state = 'running' THEN
            decision := 'in_flight';
            retry_in := held.expires_at - moment;
        ELSIF held.reply IS NULL THEN
            decision := 'reply_not_stored';
        ELSE
            decision := 'replay';
            reply := held.reply;
        END IF;
    END IF;

    IF decision IS NULL AND _amount IS NOT NULL THEN
        -- The day that the clock is in; the last one when it is beyond all.
        today := coalesce(
            (SELECT min(n) FROM generate_subscripts(_day_ends, 1) n WHERE moment < _day_ends[n]),
            cardinality(_day_ends)
        );
        day := _day_names[today];
        SELECT * INTO settled, committed, caller_committed FROM budget_of(day, _caller);
        IF committed + _amount > _cap THEN
            decision := 'budget';
        ELSIF caller_committed + _amount > _caller_cap THEN
            decision := 'caller_budget';
        END IF;
    END IF;

    IF decision = 'replay' THEN
        PERFORM take_place(_caller, places, _window, moment);
        remaining := remaining - 1;
    ELSIF decision IS NULL THEN
        -- All is written before the last lock is taken, and taken back if the cap is reached then.
        BEGIN
            PERFORM take_place(_caller, places, _window, moment);
            IF _claim_key IS NOT NULL THEN
                INSERT INTO claim (key, fingerprint, operation_id, state, expires_at)
                VALUES (_claim_key, _fingerprint, _operation_id, 'running', moment + _lease)
                ON CONFLICT (key) DO UPDATE SET
                    fingerprint = excluded.fingerprint,
                    operation_id = excluded.operation_id,
                    state = 'running',
                    reply = NULL,
                    expires_at = excluded.expires_at;
            END IF;
            IF _amount IS NOT NULL THEN
                INSERT INTO operation (id, caller, day, admitted_at, reserved)
                VALUES (_operation_id, _caller, admit.day, moment, _amount);
                INSERT INTO budget AS b (day, caller, reserved) VALUES (admit.day, _caller, _amount)
                ON CONFLICT ON CONSTRAINT budget_pkey DO UPDATE SET reserved = b.reserved + _amount;
                SELECT * INTO settled, committed
                FROM reserve_for_everyone(admit.day, _amount, _cap, give_up_at);
                IF committed IS NULL THEN
                    RAISE EXCEPTION USING ERRCODE = 'GRCAP';
                END IF;
                caller_committed := caller_committed + _amount;
            END IF;
            decision := 'admitted';
            remaining := remaining - 1;
        EXCEPTION WHEN SQLSTATE 'GRCAP' THEN
            decision := 'budget';
        END;
    END IF;

    IF decision = 'budget' OR decision = 'caller_budget' THEN
        retry_in := _day_ends[today] - moment;
    END IF;
    IF day IS NOT NULL AND (known.id IS NOT NULL OR decision = 'budget') THEN
        SELECT * INTO settled, committed, caller_committed FROM budget_of(day, _caller);
    END IF;
    -- Whoever has taken a place has written this already.
    IF gone > 0 AND (known.id IS NOT NULL OR decision NOT IN ('admitted', 'replay')) THEN
        UPDATE rate_count SET used = places WHERE caller = _caller;
    END IF;
END $$;

-- One more reservation for an operation that has one and is not settled: whether it was granted.
CREATE OR REPLACE FUNCTION top_up(
    _operation_id text, _amount bigint, _cap bigint, _caller_cap bigint, _wait_ms integer
) RETURNS boolean LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    give_up_at timestamptz := clock_timestamp() + _wait_ms * interval '1 millisecond';
    whose text := (SELECT o.caller FROM operation o WHERE o.id = _operation_id);
    known operation;
    figures record;
BEGIN
    IF whose IS NULL THEN
        RETURN false;
    END IF;
    PERFORM take_lock('caller', whose, give_up_at);
    SELECT * INTO known FROM operation o WHERE o.id = _operation_id AND o.cost IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO figures FROM budget_of(known.day, whose);
    IF figures.caller_committed + _amount > _caller_cap THEN
        RETURN false;
    END IF;
    SELECT * INTO figures FROM reserve_for_everyone(known.day, _amount, _cap, give_up_at);
    IF figures.committed IS NULL THEN
        RETURN false;
    END IF;
    UPDATE operation SET reserved = reserved + _amount WHERE id = _operation_id;
    UPDATE budget SET reserved = reserved + _amount WHERE day = known.day AND caller = whose;
    RETURN true;
END $$;

-- Ends an operation and its claim, once. No day comes back when there was nothing to settle.
CREATE OR REPLACE FUNCTION settle(
    _operation_id text, _caller text,
    _providers text[], _models text[], _calls bigint[],
    _input_tokens bigint[], _output_tokens bigint[], _costs bigint[],
    _claim_key text, _done boolean, _reply bytea, _reply_ttl bigint,
    _now bigint, _wait_ms integer,
    OUT day text, OUT settled bigint, OUT committed bigint, OUT caller_committed bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    give_up_at timestamptz := clock_timestamp() + _wait_ms * interval '1 millisecond';
    whose text := coalesce((SELECT caller FROM operation WHERE id = _operation_id), _caller);
    moment bigint;
    known operation;
    charged bigint;
BEGIN
    PERFORM take_lock('caller', whose, give_up_at);
    IF _claim_key IS NOT NULL THEN
        PERFORM take_lock('claim', _claim_key, give_up_at);
    END IF;
    moment := micros(_now);

    IF _done THEN
        UPDATE claim SET state = 'done', reply = _reply, expires_at = moment + _reply_ttl
        WHERE key = _claim_key AND operation_id = _operation_id AND state = 'running';
    ELSE
        DELETE FROM claim
        WHERE key = _claim_key AND operation_id = _operation_id AND state = 'running';
    END IF;

    SELECT * INTO known FROM operation WHERE id = _operation_id;
    IF NOT FOUND THEN
        -- Its admission may be on its way yet: then it finds itself settled.
        INSERT INTO operation (id, caller, day, reserved, cost)
        VALUES (_operation_id, whose, utc_day(moment), 0, 0);
    ELSIF known.cost IS NULL THEN
        charged := (SELECT coalesce(sum(cost), 0) FROM unnest(_costs) cost);
        UPDATE operation SET cost = charged WHERE id = _operation_id;
        INSERT INTO spent AS s
            (day, caller, provider, model, calls, input_tokens, output_tokens, cost)
        SELECT known.day, whose, c.provider, c.model,
            sum(c.calls), sum(c.input_tokens), sum(c.output_tokens), sum(c.cost)
        FROM unnest(_providers, _models, _calls, _input_tokens, _output_tokens, _costs)
            AS c (provider, model, calls, input_tokens, output_tokens, cost)
        GROUP BY c.provider, c.model
        ON CONFLICT ON CONSTRAINT spent_pkey DO UPDATE SET
            calls = s.calls + excluded.calls,
            input_tokens = s.input_tokens + excluded.input_tokens,
            output_tokens = s.output_tokens + excluded.output_tokens,
            cost = s.cost + excluded.cost;
        UPDATE budget b SET settled = b.settled + charged, reserved = b.reserved - known.reserved
        WHERE b.day = known.day AND b.caller = whose
        RETURNING b.settled + b.reserved INTO settle.caller_committed;
        PERFORM wait_until(give_up_at);
        UPDATE budget b SET settled = b.settled + charged, reserved = b.reserved - known.reserved
        WHERE b.day = known.day AND b.caller = ''
        RETURNING b.day, b.settled, b.settled + b.reserved
        INTO settle.day, settle.settled, settle.committed;
    END IF;
END $$;

-- Forgets what has expired, at most a batch of each kind. One sweep at a time, and what somebody is
-- at work on is left for the next one.
CREATE OR REPLACE FUNCTION sweep(_now bigint, _ledger_days integer, _batch integer)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    moment bigint := micros(_now);
    oldest_day text := utc_day(moment - _ledger_days * 86400000000);
    expired text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(lock_of('sweep', '')) THEN
        RETURN;
    END IF;
    DELETE FROM claim WHERE key IN (
        SELECT c.key FROM claim c WHERE c.expires_at <= moment
        LIMIT _batch FOR UPDATE SKIP LOCKED
    );
    DELETE FROM summary WHERE key IN (
        SELECT s.key FROM summary s WHERE s.expires_at <= moment
        LIMIT _batch FOR UPDATE SKIP LOCKED
    );
    DELETE FROM operation WHERE id IN (
        SELECT o.id FROM operation o WHERE o.day < oldest_day
        LIMIT _batch FOR UPDATE SKIP LOCKED
    );
    DELETE FROM budget WHERE (day, caller) IN (
        SELECT b.day, b.caller FROM budget b WHERE b.day < oldest_day
        LIMIT _batch FOR UPDATE SKIP LOCKED
    );
    DELETE FROM spent WHERE (day, caller, provider, model) IN (
        SELECT s.day, s.caller, s.provider, s.model FROM spent s WHERE s.day < oldest_day
        LIMIT _batch FOR UPDATE SKIP LOCKED
    );
    FOR expired IN SELECT c.caller FROM rate_count c WHERE c.expires_at <= moment LIMIT _batch LOOP
        IF pg_try_advisory_xact_lock(lock_of('caller', expired)) THEN
            DELETE FROM rate_count c WHERE c.caller = expired AND c.expires_at <= moment;
            IF FOUND THEN
                DELETE FROM rate_event e WHERE e.caller = expired;
            END IF;
        END IF;
    END LOOP;
END $$;
