"""Google's own SDK talks to Gemini's stand-in."""

import json
from typing import Any

import httpx
import pytest
from google.genai import Client, errors, types

from sandbox.faults import Fault
from sandbox.model import Reply, ToolCall
from sandbox.server import Sandbox
from sandbox.vendors.gemini import GENERATION_PARAMETERS, PARAMETERS

MODEL = "gemini-3.5-flash-lite"
OLD_MODEL = "gemini-2.5-flash"
HELLO = "Hello there"
ASK_WEATHER = "What is the weather in Paris?"
WEATHER_TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}},
        )
    ]
)


def ask(
    client: Client, contents: Any = HELLO, model: str = MODEL, **config: Any
) -> types.GenerateContentResponse:
    return client.models.generate_content(
        model=model, contents=contents, config=types.GenerateContentConfig(**config)
    )


def stream_of(
    client: Client, contents: Any = HELLO, **config: Any
) -> list[types.GenerateContentResponse]:
    return list(
        client.models.generate_content_stream(
            model=MODEL, contents=contents, config=types.GenerateContentConfig(**config)
        )
    )


def finish_of(response: types.GenerateContentResponse) -> types.FinishReason | None:
    assert response.candidates
    return response.candidates[0].finish_reason


def content_of(response: types.GenerateContentResponse) -> types.Content:
    assert response.candidates and response.candidates[0].content
    return response.candidates[0].content


def usage_of(
    response: types.GenerateContentResponse,
) -> types.GenerateContentResponseUsageMetadata:
    assert response.usage_metadata is not None
    return response.usage_metadata


def test_reply(gemini_client: Client) -> None:
    """A reply echoes what was received and bills input and output."""
    response = ask(gemini_client)
    assert response.text == "I received 1 messages. The last one says: Hello there"
    assert finish_of(response) is types.FinishReason.STOP
    assert response.model_version == MODEL
    assert response.response_id
    usage = usage_of(response)
    assert (usage.prompt_token_count, usage.candidates_token_count) == (8, 10)
    assert usage.total_token_count == 18


def test_system_and_history(gemini_client: Client) -> None:
    """The system instruction and the history count among the messages received."""
    chat = gemini_client.chats.create(
        model=MODEL, config=types.GenerateContentConfig(system_instruction="Be kind")
    )
    chat.send_message(HELLO)
    response = chat.send_message(HELLO)
    assert response.text == "I received 4 messages. The last one says: Hello there"


def test_summary(gemini_client: Client) -> None:
    """A system instruction that asks for a summary gets one that counts the messages."""
    response = ask(gemini_client, system_instruction="Write a summary.")
    assert response.text == "Summary of 1 messages."


def test_stream(gemini_client: Client) -> None:
    """The pieces add up to the reply, each tells the usage so far, the last why it ends."""
    whole = ask(gemini_client)
    responses = stream_of(gemini_client)
    assert "".join(response.text or "" for response in responses) == whole.text
    counts = [usage_of(response).candidates_token_count for response in responses]
    assert counts == [*range(1, 11), 10]
    finishes = [finish_of(response) for response in responses]
    assert finishes == [None] * 10 + [types.FinishReason.STOP]
    assert len({response.response_id for response in responses}) == 1


def test_a_stream_that_asks_for_no_events_is_an_array(sandbox: Sandbox, http: httpx.Client) -> None:
    """Without `alt=sse` the same responses come as one JSON document."""
    key = sandbox.environment()["GEMINI_API_KEY"]
    response = http.post(
        f"{sandbox.url}/gemini/v1beta/models/{MODEL}:streamGenerateContent",
        json={"contents": [{"parts": [{"text": HELLO}]}]},
        headers={"x-goog-api-key": key},
    )
    assert response.headers["content-type"] == "application/json"
    parsed = [types.GenerateContentResponse.model_validate(item) for item in response.json()]
    assert finish_of(parsed[-1]) is types.FinishReason.STOP


def test_token_limit(gemini_client: Client) -> None:
    """A reply is cut at the limit and says so."""
    response = ask(gemini_client, max_output_tokens=3)
    assert response.text == "I received 1"
    assert finish_of(response) is types.FinishReason.MAX_TOKENS
    assert usage_of(response).candidates_token_count == 3


def test_stop_sequence(gemini_client: Client) -> None:
    """A reply ends before a stop sequence."""
    response = ask(gemini_client, stop_sequences=["says", " The"])
    assert response.text == "I received 1 messages."
    assert finish_of(response) is types.FinishReason.STOP


def test_tool_call_and_its_result(gemini_client: Client) -> None:
    """A tool is called for what it is named after, and its result is quoted."""
    response = ask(gemini_client, ASK_WEATHER, tools=[WEATHER_TOOL])
    assert finish_of(response) is types.FinishReason.STOP
    assert response.function_calls
    (call,) = response.function_calls
    assert (call.name, call.args) == ("get_weather", {"city": ASK_WEATHER})
    result = types.FunctionResponse(id=call.id, name=call.name, response={"output": "21 degrees"})
    history = [
        types.Content(role="user", parts=[types.Part(text=ASK_WEATHER)]),
        content_of(response),
        types.Content(role="user", parts=[types.Part(function_response=result)]),
    ]
    final = ask(gemini_client, history, tools=[WEATHER_TOOL])
    assert final.text == "The tool answered: 21 degrees"


def test_a_call_without_its_signature_is_refused(gemini_client: Client) -> None:
    """The first call of each step of the current turn must come back signed, later ones need not;
    before Gemini 3 none need."""
    calls = [types.FunctionCall(id=id, name="f", args={}) for id in "ab"]
    results = [types.FunctionResponse(id=id, name="f", response={"output": "x"}) for id in "ab"]
    question = types.Content(role="user", parts=[types.Part(text="Hi")])
    answered = types.Content(
        role="user", parts=[types.Part(function_response=result) for result in results]
    )

    def history(*signatures: bytes | None) -> list[types.Content]:
        parts = [
            types.Part(function_call=call, thought_signature=signature)
            for call, signature in zip(calls, signatures, strict=True)
        ]
        return [question, types.Content(role="model", parts=parts), answered]

    ask(gemini_client, history(b"what it thought", None))
    ask(gemini_client, history(None, None), model=OLD_MODEL)
    ask(gemini_client, [*history(None, None), question])
    with pytest.raises(errors.ClientError, match="missing a thought_signature"):
        ask(gemini_client, history(None, b"what it thought"))


def test_streamed_tool_calls(sandbox: Sandbox, gemini_client: Client) -> None:
    """Text and several calls are streamed as parts of one reply; each call comes whole."""
    calls = (ToolCall("get_weather", {"city": "Paris and Rome"}), ToolCall("get_time"))
    sandbox.script("gemini", [Reply(text="Let me see.", tool_calls=calls)])
    responses = stream_of(gemini_client, tools=[WEATHER_TOOL])
    parts = [part for response in responses for part in content_of(response).parts or ()]
    assert "".join(part.text or "" for part in parts) == "Let me see."
    first, second = [part for part in parts if part.function_call]
    assert first.function_call and second.function_call
    assert first.function_call.args == {"city": "Paris and Rome"}
    assert (second.function_call.name, second.function_call.args) == ("get_time", {})
    assert first.thought_signature and not second.thought_signature
    assert finish_of(responses[-1]) is types.FinishReason.STOP


@pytest.mark.parametrize(
    ("mode", "names", "called"),
    [
        ("AUTO", None, False),
        ("NONE", None, False),
        ("VALIDATED", None, False),
        ("ANY", None, True),
        ("ANY", ["get_weather"], True),
    ],
)
def test_tool_choice(
    gemini_client: Client, mode: str, names: list[str] | None, called: bool
) -> None:
    """The mode decides over the text."""
    calling = types.FunctionCallingConfig(
        mode=types.FunctionCallingConfigMode(mode), allowed_function_names=names
    )
    response = ask(
        gemini_client,
        tools=[WEATHER_TOOL],
        tool_config=types.ToolConfig(function_calling_config=calling),
    )
    assert bool(response.function_calls) is called


def test_json(gemini_client: Client) -> None:
    """A schema is filled; without one there is some JSON object."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    response = ask(
        gemini_client, response_mime_type="application/json", response_json_schema=schema
    )
    assert json.loads(response.text or "") == {"ok": True}
    response = ask(gemini_client, response_mime_type="application/json")
    assert isinstance(json.loads(response.text or ""), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_scripted_usage(sandbox: Sandbox, gemini_client: Client, stream: bool) -> None:
    """Cached tokens come within the prompt's, thoughts beside the candidates'."""
    reply = Reply(
        text="Yes.", input_tokens=100, output_tokens=50, cached_input_tokens=60, reasoning_tokens=40
    )
    sandbox.script("gemini", [reply])
    response = stream_of(gemini_client)[-1] if stream else ask(gemini_client)
    usage = usage_of(response)
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 60)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (10, 40)
    assert usage.total_token_count == 150


def test_refusal(sandbox: Sandbox, gemini_client: Client) -> None:
    """What the filter stops is not shown."""
    sandbox.script("gemini", [Reply(refusal=True)])
    response = ask(gemini_client)
    assert not response.text
    assert finish_of(response) is types.FinishReason.SAFETY


@pytest.mark.parametrize("stream", [False, True])
def test_missing_usage(sandbox: Sandbox, gemini_client: Client, stream: bool) -> None:
    """Usage can be left out altogether."""
    sandbox.script("gemini", [Reply(usage=False)])
    responses = stream_of(gemini_client) if stream else [ask(gemini_client)]
    assert [response.usage_metadata for response in responses] == [None] * len(responses)


def test_a_blocked_prompt_has_no_candidates(sandbox: Sandbox, gemini_client: Client) -> None:
    """A prompt against the policy is no error to HTTP, but gets no reply."""
    sandbox.script("gemini", [Fault(error="content_policy")])
    response = ask(gemini_client)
    assert not response.candidates
    assert response.prompt_feedback is not None
    assert response.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT


def test_wrong_key(sandbox: Sandbox, http: httpx.Client) -> None:
    """A wrong key is 400, like a fault of the request; one in the URL is none at all."""
    url = f"{sandbox.url}/gemini/v1beta/models/{MODEL}:generateContent"
    body = {"contents": [{"parts": [{"text": HELLO}]}]}
    wrong = http.post(url, json=body, headers={"x-goog-api-key": "somebody-elses"})
    assert wrong.status_code == 400
    (info,) = wrong.json()["error"]["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["reason"] == "API_KEY_INVALID"
    key = sandbox.environment()["GEMINI_API_KEY"]
    assert http.post(f"{url}?key={key}", json=body).status_code == 403
    assert http.post(url, json=body, headers={"x-goog-api-key": key}).status_code == 200


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_both_versions_of_the_api_answer(
    sandbox: Sandbox, http: httpx.Client, version: str
) -> None:
    """The SDK takes the one, the documentation's examples the other."""
    response = http.post(
        f"{sandbox.url}/gemini/{version}/models/{MODEL}:generateContent",
        json={"contents": [USER]},
        headers={"x-goog-api-key": sandbox.environment()["GEMINI_API_KEY"]},
    )
    assert response.status_code == 200


USER = {"role": "user", "parts": [{"text": "Hi"}]}
CALL = {"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": "AAAA"}
RESULT = {"functionResponse": {"id": "a", "name": "f", "response": {"output": "x"}}}


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [user()]}, "must not be empty"),
        ({"contents": [user({"text": ""})]}, "must not be empty"),
        ({"contents": [USER, model({"text": "x"})]}, "last turn has the role model"),
        ({"contents": [model(CALL), user(RESULT)]}, "immediately after a user turn"),
        ({"contents": [USER, model(CALL)]}, "comes after a function call turn"),
        ({"contents": [USER, model(CALL), USER]}, "number of function response parts"),
        ({"contents": [USER, user(RESULT)]}, "number of function response parts"),
        ({"contents": [USER, model(CALL), user(RESULT, RESULT)]}, "number of function response"),
        (
            {"contents": [USER, model(CALL), user({"functionResponse": {"response": {}}})]},
            "Name cannot be empty",
        ),
        ({"n": 2}, 'Unknown name "n": Cannot find field.'),
        ({"generationConfig": {"n": 2}}, "Unknown name \"n\" at 'generation_config'"),
        ({"generationConfig": {"temperature": 3}}, "generation_config.temperature"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generation_config.max_output_tokens"),
        ({"generationConfig": {"seed": 2**31}}, "generation_config.seed"),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "stop_sequences"),
        ({"generationConfig": {"responseJsonSchema": {}}}, "requires response_mime_type"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0, "thinkingLevel": "LOW"}}},
            "only one of thinking budget and thinking level",
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "function_declarations"),
        (
            {"toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}}},
            "mode ANY or VALIDATED",
        ),
        ({"contents": ["Hello"]}, "does not fit"),
    ],
)
def test_refused_requests(
    sandbox: Sandbox, http: httpx.Client, body: dict[str, Any], message: str
) -> None:
    """What the vendor does not accept is a 400 that says why."""
    response = http.post(
        f"{sandbox.url}/gemini/v1beta/models/{MODEL}:generateContent",
        json={"contents": [USER]} | body,
        headers={"x-goog-api-key": sandbox.environment()["GEMINI_API_KEY"]},
    )
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error["message"]


def test_older_models_differ(gemini_client: Client) -> None:
    """They go on with a turn of their own, and give JSON or call tools, not both."""
    started = [
        types.Content(role="user", parts=[types.Part(text="Hi")]),
        types.Content(role="model", parts=[types.Part(text="I")]),
    ]
    assert ask(gemini_client, started, model=OLD_MODEL).text
    both: dict[str, Any] = {"tools": [WEATHER_TOOL], "response_mime_type": "application/json"}
    assert ask(gemini_client, **both).text
    with pytest.raises(errors.ClientError, match="is unsupported"):
        ask(gemini_client, model=OLD_MODEL, **both)


def test_parameters_are_the_vendors() -> None:
    """The stand-in knows exactly the parameters that the SDK can send to this API."""
    fields = types.GenerationConfig.model_fields
    known = {
        field.alias or name
        for name, field in fields.items()
        if "not supported in Gemini API" not in (field.description or "")
    }
    elsewhere = {"modelSelectionConfig", "enableAffectiveDialog"}  # in Google's cloud, and live
    beside = {"imageConfig"}  # which the SDK has in its own configuration
    assert set(GENERATION_PARAMETERS.split()) == known - elsewhere | beside
    own = {field.alias or name for name, field in types.GenerateContentConfig.model_fields.items()}
    assert set(PARAMETERS.split()) - own == {"contents", "generationConfig"}


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault(status=400), errors.ClientError, "INVALID_ARGUMENT"),
        (Fault(status=401), errors.ClientError, "UNAUTHENTICATED"),
        (Fault(status=403), errors.ClientError, "PERMISSION_DENIED"),
        (Fault(status=404), errors.ClientError, "NOT_FOUND"),
        (Fault(status=429), errors.ClientError, "RESOURCE_EXHAUSTED"),
        (Fault(error="invalid_api_key"), errors.ClientError, "INVALID_ARGUMENT"),
        (Fault(error="quota_exhausted"), errors.ClientError, "RESOURCE_EXHAUSTED"),
        (Fault(error="spend_limit"), errors.ClientError, "RESOURCE_EXHAUSTED"),
        (Fault(error="context_too_long"), errors.ClientError, "INVALID_ARGUMENT"),
        (Fault(status=500), errors.ServerError, "INTERNAL"),
        (Fault(error="overloaded"), errors.ServerError, "UNAVAILABLE"),
        (Fault(status=504), errors.ServerError, "DEADLINE_EXCEEDED"),
        (Fault(status=529), errors.ServerError, "UNKNOWN"),
        (Fault(html=True, status=503), errors.ServerError, ""),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_typed_errors(
    sandbox: Sandbox,
    gemini_client: Client,
    fault: Fault,
    error: type[errors.APIError],
    status: str,
    stream: bool,
) -> None:
    """The SDK raises the error that it would raise for the vendor."""
    sandbox.script("gemini", [fault])
    with pytest.raises(error) as caught:
        stream_of(gemini_client) if stream else ask(gemini_client)
    assert caught.value.status == status


def test_quotas_tell_which_and_when(sandbox: Sandbox, gemini_client: Client) -> None:
    """The minute's and the day's quota differ by their id alone, and both tell a wait."""
    seen = []
    for name in ("rate_limited", "quota_exhausted"):
        sandbox.script("gemini", [Fault(error=name)])
        with pytest.raises(errors.ClientError) as caught:
            ask(gemini_client)
        quota, retry = caught.value.details["error"]["details"]
        assert retry["@type"].endswith("RetryInfo") and retry["retryDelay"].endswith("s")
        seen.append((caught.value.message, quota["violations"][0]["quotaId"]))
    (one, minute), (other, day) = seen
    assert one == other
    assert "PerMinute" in minute and "PerDay" in day


def test_lost_connection(sandbox: Sandbox, gemini_client: Client) -> None:
    """A reset is a broken connection."""
    sandbox.script("gemini", [Fault(action="reset")])
    with pytest.raises(Exception, match="reset"):  # of whichever HTTP client the SDK has found
        ask(gemini_client)


def test_error_inside_a_stream(sandbox: Sandbox, gemini_client: Client) -> None:
    """A stream that began well can end with an error."""
    fault = Fault(action="error_event", error="overloaded", after_chunks=2, reply=Reply(chunks=9))
    sandbox.script("gemini", [fault])
    received = ""
    with pytest.raises(errors.ServerError) as caught:
        for response in gemini_client.models.generate_content_stream(model=MODEL, contents=HELLO):
            received += response.text or ""
    assert received == "word1 word2"
    assert caught.value.status == "UNAVAILABLE"
