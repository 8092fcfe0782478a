"""The constants that few owners change. What changes between deployments is a setting instead
(`guardrails/environment/settings.py`); what changes with the code's promises stands here.
"""

from typing import Final

# Providers
MAX_CONCURRENT_CALLS: Final = 64
"""Calls to one provider at a time, in one process; more wait within their deadline."""
KEEP_ALIVE_SECONDS: Final = 4.0
"""A connection that has been idle for longer is not used again. Below the five seconds after which
uvicorn (and so vLLM) and Node hang up, since a call that meets the hang-up may have been billed."""
MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
BACKOFF_BASE_SECONDS: Final = 0.5
"""The first wait before a retry; each further one doubles, with up to a quarter of jitter."""
BACKOFF_MAX_SECONDS: Final = 8.0
RETRY_BUDGET_RATIO: Final = 0.2
"""Retries that each first attempt earns: in a storm at most a fifth of the calls are retries."""
RETRY_BUDGET_RESERVE: Final = 10.0
"""Retries that a process may make before any have been earned, and at most save up."""
BREAKER_FAILURES: Final = 5
"""Failures in a row that open a provider's circuit breaker."""
BREAKER_COOL_DOWN_SECONDS: Final = 30.0
PROVIDERS_RETRY_AFTER_SECONDS: Final = 5

# The store
STORE_TIMEOUT_SECONDS: Final = 2.0
"""Bound on one step of the store, with all its waits: for a connection, a lock, the answer."""
STORE_OPEN_TIMEOUT_SECONDS: Final = 5.0
"""Bound on reaching the store at start and bringing its schema up to date."""
STORE_RETRY_AFTER_SECONDS: Final = 2
STORE_CONNECTIONS: Final = 32
"""Of one process to the store's server, where it has one; further steps wait their turn."""
STORE_DATABASE_CONNECTIONS: Final = 8
"""The same where a connection is a process of the server's, which usually has room for 100."""
SETTLEMENT_BACKLOG: Final = 1_000
"""Settlements that wait in memory for the store to come back; the oldest gives way."""
SETTLEMENT_RETRY_SECONDS: Final = 1.0
SWEEP_EVERY_STEPS: Final = 64
"""Admissions and settlements between two sweeps of what has expired."""
SWEEP_BATCH: Final = 200
"""What a sweep removes of each kind at most: more than can have come since the last one."""
LEDGER_DAYS: Final = 35
"""Days that the ledger reaches back."""

# Idempotency
CLAIM_MARGIN_SECONDS: Final = 10.0
"""A claim outlives the deadline of its call by this much; then a killed worker's claim is free."""
IN_FLIGHT_RETRY_AFTER_SECONDS: Final = 2
MAX_STORED_REPLY_BYTES: Final = 256 * 1024

# Context
SUMMARY_OUTPUT_TOKENS: Final = 300
SUMMARY_TTL_SECONDS: Final = 86_400.0
SUMMARY_LOOKBACK_TURNS: Final = 100
"""How many turns back an earlier summary is looked for that a new one can go on from."""
SUMMARY_INLINE_MESSAGES: Final = 1_000
"""What is dropped of longer conversations is looked through in a thread."""
SUMMARY_MIN_DEADLINE_SECONDS: Final = 10.0
"""With less time than this left, history is trimmed without a summary."""
COUNT_INLINE_CHARACTERS: Final = 20_000
"""Longer texts are counted in a thread, in pieces of this length."""

# Streams
STREAM_QUEUE_CHUNKS: Final = 64
"""Chunks read ahead of a slow caller; beyond them the provider waits."""

# Metrics
SAMPLE_SECONDS: Final = 5.0
"""How old what one of several workers tells of another may be, where time alone changes it."""

# Alerts
ALERT_COOL_DOWN_SECONDS: Final = 300.0
"""Of one kind of alert, in one process: each of several workers tells of the same trouble."""
ALERT_TIMEOUT_SECONDS: Final = 5.0
"""Bound on sending one alert, and on sending what is left when the service ends."""
ALERT_RETRY_SECONDS: Final = (1.0, 10.0, 60.0)
"""Waits before an alert is sent again that the webhook could not be reached for, or refused."""
ALERT_QUEUE: Final = 100
"""Alerts that wait for a channel; beyond them they are only in the log."""
ALERT_KINDS: Final = 1_000
"""Kinds whose cool-down is kept; those that are over are forgotten then."""
BUDGET_WARNING_RATIO: Final = 0.8
DAY_SECONDS: Final = 86_400.0

# Traces
TRACE_FLUSH_SECONDS: Final = 2.0
"""What the collector has at shutdown to take the last spans."""

# Shutdown
CUT_OFF_SECONDS: Final = 3.0
"""What a call that is cut off has to settle and to tell its caller."""
