"""Whatever a vendor sends, an adapter raises `ProviderError` or nothing."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import ProviderError
from app.messages import ChatReply, ChatRequest, Chunk, Message, Text, Tool
from app.providers.base import ProviderAdapter, ServerSentEvent
from sandbox.vendors import discover


def one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words.split())


KEYS = """
    args arguments blockReason cache_creation_input_tokens cache_read_input_tokens cached_tokens
    candidates candidatesTokenCount choices code completion_tokens completion_tokens_details
    content content_block delta detail details error error_code explanation field fieldViolations
    finishReason finish_reason flagged_input function functionCall id index input input_tokens loc
    message metadata model msg name object output_tokens output_tokens_details param parts
    partial_json promptFeedback promptTokenCount prompt_cache_hit_tokens prompt_tokens
    prompt_tokens_details quotaId reason reasoning reasoning_content reasoning_tokens refusal
    retryDelay status stop_details stop_reason text thinking_tokens thought thoughtSignature
    tool_calls total_tokens type usage usageMetadata violations x_groq
"""
WORDS = """
    api_error error function input_json_delta insufficient_quota invalid_request_error message
    overloaded_error refusal stop text text_delta thinking tool_use end_turn eos abort body
    MARKED-PROMPT API_KEY_INVALID INVALID_ARGUMENT MALFORMED_FUNCTION_CALL PerDay SAFETY STOP 17s
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | one_of(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(one_of(KEYS), inner, max_size=5),
    max_leaves=15,
)
BODIES = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50)
EVENT_NAMES = """
    message error ping message_start content_block_start content_block_delta content_block_stop
    message_delta message_stop
"""


EVENTS = st.builds(
    ServerSentEvent,
    one_of(EVENT_NAMES),
    BODIES.map(lambda body: body.decode("utf-8", "replace")) | st.just("[DONE]"),
)
FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=list(discover()))
def adapter(request: pytest.FixtureRequest) -> ProviderAdapter:
    made: ProviderAdapter = request.getfixturevalue(request.param)()
    return made


@FUZZ
@given(body=BODIES)
def test_decode_raises_only_provider_errors(adapter: ProviderAdapter, body: bytes) -> None:
    """A body is a reply or a `ProviderError`."""
    with suppress(ProviderError):
        assert isinstance(adapter.decode(body), ChatReply)


@FUZZ
@given(events=st.lists(EVENTS, max_size=6))
def test_feed_raises_only_provider_errors(
    adapter: ProviderAdapter, events: list[ServerSentEvent]
) -> None:
    """Events are chunks or a `ProviderError`, in any order; so is their end."""
    decoder = adapter.open_stream()
    with suppress(ProviderError):
        for event in events:
            assert all(isinstance(chunk, Chunk) for chunk in decoder.feed(event))
        decoder.close()


@FUZZ
@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=10)
    ),
    body=BODIES
    | JSON.map(lambda value: json.dumps({"error": value}).encode())
    | JSON.map(lambda value: json.dumps({"detail": value}).encode()),
)
def test_decode_error_always_finds_an_error(
    adapter: ProviderAdapter, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Every status and body is some `ProviderError`, which repeats no prose."""
    error = adapter.decode_error(status, headers, body)
    assert isinstance(error, ProviderError)
    assert error.status == status
    assert "MARKED" not in str(error)


def test_a_schema_with_huge_numbers_is_sent_as_it_is(adapter: ProviderAdapter) -> None:
    """A caller's JSON Schema may hold integers beyond 64 bits."""
    tool = Tool("count", parameters={"type": "object", "maximum": 10**30})
    request = ChatRequest((Message("user", (Text("Hi"),)),), max_output_tokens=1, tools=(tool,))
    assert str(10**30).encode() in adapter.encode(request, stream=False).body
