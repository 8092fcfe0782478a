"""Stand-in of Google's Gemini API.

It refuses what Gemini refuses. Parameters that could change nothing in a stand-in's answer are
accepted and ignored, and any model name is taken.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from sandbox.model import Completion, Finish, Prompt, Reply, Turn, complete
from sandbox.vendors import (
    Answer,
    ErrorName,
    Piece,
    Request,
    Vendor,
    VendorError,
    json_answer,
    text_of,
    to_json,
)

PARAMETERS = """
    cachedContent contents generationConfig safetySettings serviceTier store systemInstruction
    toolConfig tools
"""
GENERATION_PARAMETERS = """
    audioTranscriptionConfig candidateCount enableEnhancedCivicAnswers frequencyPenalty imageConfig
    logprobs maxOutputTokens mediaResolution presencePenalty responseFormat responseJsonSchema
    responseLogprobs responseMimeType responseModalities responseSchema seed speechConfig
    stopSequences temperature thinkingConfig topK topP translationConfig
"""
METHOD = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent)")
BEFORE_3 = re.compile(r"gemini-[12]\.")
TAKES_PREFILL = re.compile(r"gemini-([12]\.|3-|3\.[0-4]-|3\.5-flash(?!-lite))")
INVALID = "INVALID_ARGUMENT"
EXHAUSTED = "RESOURCE_EXHAUSTED"
BLOCKED = "PROHIBITED_CONTENT"
QUOTA_PROSE = "You exceeded your current quota, please check your plan and billing details."
ERROR_TYPES = {
    400: INVALID,
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: EXHAUSTED,
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
FINISH_REASONS: Mapping[Finish, str] = {"length": "MAX_TOKENS", "refusal": "SAFETY"}


class StandIn(Vendor):
    """`code` is the reason in an error's `ErrorInfo`, or the quota in its `QuotaFailure`."""

    name: ClassVar[str] = "gemini"
    prefix: ClassVar[str] = "/gemini"
    api_key: ClassVar[str] = "sandbox-gemini-b16f0d92c47e"
    errors: ClassVar[Mapping[ErrorName, VendorError]] = {
        "invalid_request": VendorError(400, INVALID, "Request contains an invalid argument."),
        # It looks like a fault of the request but for its reason.
        "invalid_api_key": VendorError(
            400, INVALID, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"
        ),
        "permission_denied": VendorError(
            403,
            "PERMISSION_DENIED",
            "Requests to this API method are blocked.",
            "API_KEY_SERVICE_BLOCKED",
        ),
        "model_not_found": VendorError(
            404, "NOT_FOUND", "The model is not found for API version v1beta."
        ),
        # Of two quotas in the same words, only one comes back within the minute.
        "rate_limited": VendorError(
            429, EXHAUSTED, QUOTA_PROSE, "GenerateRequestsPerMinutePerProjectPerModel"
        ),
        "quota_exhausted": VendorError(
            429, EXHAUSTED, QUOTA_PROSE, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
        ),
        "spend_limit": VendorError(
            429, EXHAUSTED, "Your project has exceeded its monthly spending cap."
        ),
        "context_too_long": VendorError(
            400,
            INVALID,
            "The input token count (1194892) exceeds the maximum number of tokens allowed"
            " (1048576).",
        ),
        # No error to HTTP: a reply without candidates, and as a rule without words.
        "content_policy": VendorError(200, BLOCKED, ""),
        "server_error": VendorError(500, "INTERNAL", "An internal error has occurred."),
        "overloaded": VendorError(
            503, "UNAVAILABLE", "The model is overloaded. Please try again later."
        ),
    }

    def environment(self, origin: str) -> dict[str, str]:
        return {"GEMINI_API_KEY": self.api_key, "GEMINI_BASE_URL": origin + self.prefix}

    def answer(self, request: Request, reply: Reply) -> Answer:
        self._authenticate(request.headers.get("x-goog-api-key", ""))
        called = METHOD.fullmatch(request.path)
        if request.method != "POST" or called is None:
            raise VendorError(404, "NOT_FOUND", "Requested entity was not found.")
        model, method = called.groups()
        _check(request.body, model)
        completion = complete(_prompt(request.body), reply)
        if method == "generateContent":
            return json_answer(200, _whole(request, completion, reply, model), {})
        events = tuple(_stream(request, completion, reply, model))
        if request.query != "alt=sse":
            return Answer(200, "application/json", tuple(_array(events)))
        pieces = tuple(Piece(_event(data), is_chunk) for data, is_chunk in events)
        return Answer(200, "text/event-stream", pieces)

    def error_type(self, status: int) -> str:
        return ERROR_TYPES.get(status, "UNKNOWN")

    def error_answer(self, error: VendorError, request: Request) -> Answer:
        return json_answer(error.status, _error_body(error, request), {})

    def error_event(self, error: VendorError, request: Request) -> bytes:
        return _event(_error_body(error, request))

    def _authenticate(self, key: str) -> None:
        if not key:
            message = "Method doesn't allow unregistered callers. Please use API Key."
            raise VendorError(403, "PERMISSION_DENIED", message)
        if key != self.api_key:
            raise self.errors["invalid_api_key"]


def _reject(message: str, field: str | None = None) -> NoReturn:
    raise VendorError(400, INVALID, message, param=field)


def _check(body: Any, model: str) -> None:
    if not isinstance(body, dict):
        _reject("Invalid JSON payload received. Expected a value.")
    config = body.get("generationConfig") or {}
    _check_names(body, PARAMETERS, "")
    _check_names(config, GENERATION_PARAMETERS, " at 'generation_config'")
    _check_config(config)
    _check_tools(body, config, model)
    _check_contents(body.get("contents") or [], model)


def _check_names(given: Mapping[str, Any], known: str, place: str) -> None:
    if unknown := sorted(given.keys() - set(known.split())):
        _reject(
            f'Invalid JSON payload received. Unknown name "{unknown[0]}"{place}: Cannot find field.'
        )


def _check_config(config: dict[str, Any]) -> None:
    for name, minimum, maximum in (
        ("temperature", 0, 2),
        ("topP", 0, 1),
        ("maxOutputTokens", 1, 65536),
        ("seed", -(2**31), 2**31 - 1),
    ):
        if not minimum <= config.get(name, 1) <= maximum:
            field = re.sub("([A-Z])", r"_\1", name).lower()
            _reject(
                f"* GenerateContentRequest.generation_config.{field}: out of range.",
                f"generation_config.{field}",
            )
    if len(config.get("stopSequences", ())) > 5:
        _reject("* GenerateContentRequest.generation_config.stop_sequences: more than 5.")
    if {"thinkingBudget", "thinkingLevel"} <= (config.get("thinkingConfig") or {}).keys():
        _reject("You can only set only one of thinking budget and thinking level.")
    wants_schema = "responseJsonSchema" in config or "responseSchema" in config
    if wants_schema and config.get("responseMimeType") != "application/json":
        _reject("Setting a response schema requires response_mime_type application/json.")


def _check_tools(body: dict[str, Any], config: dict[str, Any], model: str) -> None:
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if calling.get("allowedFunctionNames") and calling.get("mode") not in ("ANY", "VALIDATED"):
        _reject("Allowed function names can only be set in mode ANY or VALIDATED.")
    if calling.get("mode") == "ANY" and not body.get("tools"):
        _reject("Function calling config is set without function_declarations.")
    if BEFORE_3.match(model) and body.get("tools") and "responseMimeType" in config:
        _reject("Function calling with a response mime type: 'application/json' is unsupported")


def _check_contents(contents: list[dict[str, Any]], model: str) -> None:
    """Roles, no empty content, every call answered at once, and the model's signatures."""
    if not contents:
        _reject("* GenerateContentRequest.contents: contents is not specified")
    calls: Sequence[dict[str, Any]] = ()
    for index, content in enumerate(contents):
        place = f"* GenerateContentRequest.contents[{index}]"
        if content.get("role", "user") not in ("user", "model"):
            _reject("Please use a valid role: user, model.")
        if not content.get("parts") or any(part.get("text") == "" for part in content["parts"]):
            _reject(f"{place}.parts: contents.parts must not be empty.")
        results = [part["functionResponse"] for part in content["parts"] if _is_result(part)]
        if not all(result.get("name") for result in results):
            _reject(f"{place}.parts[0].function_response.name: Name cannot be empty.")
        if sorted(map(_key, calls)) != sorted(map(_key, results)):
            _reject(
                "Please ensure that the number of function response parts is equal to the number"
                " of function call parts of the function call turn."
            )
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        if calls and (index == 0 or content.get("role") != "model"):
            _reject("Please ensure that function call turn comes immediately after a user turn.")
    if calls:
        _reject("Please ensure that function response turn comes after a function call turn.")
    if contents[-1].get("role") == "model" and not TAKES_PREFILL.match(model):
        _reject("Requests whose last turn has the role model are not supported.")
    if not BEFORE_3.match(model):
        _check_signatures(contents)


def _check_signatures(contents: list[dict[str, Any]]) -> None:
    """https://ai.google.dev/gemini-api/docs/thought-signatures: the first call of each step of the
    current turn, which the last words of the user have begun."""
    asked = [i for i, content in enumerate(contents) if _is_question(content)]
    for content in contents[asked[-1] if asked else 0 :]:
        first = next((part for part in content["parts"] if "functionCall" in part), None)
        if first is not None and not first.get("thoughtSignature"):
            name = first["functionCall"]["name"]
            _reject(
                "Function call is missing a thought_signature in functionCall parts. Additional"
                f" data, function call `default_api:{name}`."
            )


def _is_question(content: Mapping[str, Any]) -> bool:
    return content.get("role") != "model" and not all(map(_is_result, content["parts"]))


def _is_result(part: Mapping[str, Any]) -> bool:
    return "functionResponse" in part


def _key(call: Mapping[str, Any]) -> tuple[str, str]:
    return call.get("id", ""), call["name"]


def _prompt(body: dict[str, Any]) -> Prompt:
    config = body.get("generationConfig") or {}
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    system = text_of((body.get("systemInstruction") or {}).get("parts"))
    tools = body.get("tools") or ()
    declared = [function for tool in tools for function in tool["functionDeclarations"]]
    schema = config.get("responseJsonSchema", config.get("responseSchema", {}))
    turns = [turn for content in body["contents"] for turn in _turns(content)]
    return Prompt(
        turns=[*([Turn("system", system)] if system else []), *turns],
        max_tokens=config.get("maxOutputTokens"),
        stop=config.get("stopSequences", ()),
        tools={function["name"]: _parameters(function) for function in declared},
        tool_choice=_tool_choice(calling),
        json_schema=schema if config.get("responseMimeType") == "application/json" else None,
    )


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    # Google takes both ways of writing a name, and its SDK sends this one so.
    names = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    return next((function[name] for name in names if name in function), {})


def _tool_choice(calling: Mapping[str, Any]) -> str:
    names = calling.get("allowedFunctionNames")
    match calling.get("mode"):
        case "ANY":
            return f"tool:{names[0]}" if names else "required"
        case "NONE":
            return "none"
        case _:
            return "auto"


def _turns(content: dict[str, Any]) -> Iterator[Turn]:
    """A user's content may hold results of tools and text: each is a turn to the model."""
    for part in content["parts"]:
        if _is_result(part):
            response = part["functionResponse"]["response"]
            yield Turn("tool", str(response.get("output", response)))
    text = text_of(content["parts"])
    if content.get("role") == "model":
        yield Turn("assistant", text)
    elif text or not any(map(_is_result, content["parts"])):
        yield Turn("user", text)


def _whole(request: Request, completion: Completion, reply: Reply, model: str) -> dict[str, Any]:
    text = [{"text": completion.text}] if completion.text and not _is_blocked(completion) else []
    parts = [*text, *_calls(request, completion)]
    return _response(request, reply, model, parts, _end(completion), _usage(completion))


def _stream(
    request: Request, completion: Completion, reply: Reply, model: str
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each event, and whether it holds a piece of the model's output. All tell the usage so far."""
    written: list[str] = []
    for text in () if _is_blocked(completion) else completion.pieces:
        written.append(text)
        usage = _usage(completion, so_far=len(written))
        yield _response(request, reply, model, [{"text": text}], {}, usage), True
    for call in _calls(request, completion):
        usage = _usage(completion, so_far=len(written))
        yield _response(request, reply, model, [call], {}, usage), True
    end = _response(request, reply, model, [{"text": ""}], _end(completion), _usage(completion))
    yield end, False


def _response(
    request: Request,
    reply: Reply,
    model: str,
    parts: list[dict[str, Any]],
    end: dict[str, Any],
    usage: dict[str, Any],
) -> dict[str, Any]:
    content = {"content": {"parts": parts, "role": "model"}} if parts else {}
    head = {"modelVersion": reply.model or model, "responseId": f"sandbox{request.number}"}
    return {"candidates": [{**content, **end, "index": 0}], **usage, **head}


def _end(completion: Completion) -> dict[str, Any]:
    end = {"finishReason": FINISH_REASONS.get(completion.finish, "STOP")}
    return end | ({"finishMessage": completion.text} if _is_blocked(completion) else {})


def _is_blocked(completion: Completion) -> bool:
    """What the filter has stopped is not shown."""
    return completion.finish == "refusal"


def _calls(request: Request, completion: Completion) -> list[dict[str, Any]]:
    """Of parallel calls only the first is signed."""
    calls: list[dict[str, Any]] = [
        {
            "functionCall": {
                "id": f"sandbox{request.number}_{index}",
                "name": call.name,
                "args": call.arguments,
            }
        }
        for index, call in enumerate(completion.tool_calls)
    ]
    if calls:
        thought = f"What the model thought of request {request.number}.>?"
        calls[0]["thoughtSignature"] = base64.b64encode(thought.encode()).decode()
    return calls


def _usage(completion: Completion, so_far: int | None = None) -> dict[str, Any]:
    """Thoughts come beside the candidates' tokens, not within them."""
    usage = completion.usage
    if usage is None:
        return {}
    written = usage.output_tokens - usage.reasoning_tokens
    written = written if so_far is None else min(so_far, written)
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": written,
        "totalTokenCount": usage.input_tokens + written + usage.reasoning_tokens,
        "cachedContentTokenCount": usage.cached_input_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
    }
    # What is 0 is left out, as everywhere at Google.
    return {"usageMetadata": {name: count for name, count in counts.items() if count}}


def _error_body(error: VendorError, request: Request) -> dict[str, Any]:
    if error.type == BLOCKED:
        head = {"modelVersion": "sandbox", "responseId": f"sandbox{request.number}"}
        words = {"blockReasonMessage": error.message} if error.message else {}
        return {"promptFeedback": {"blockReason": BLOCKED, **words}, **head}
    body: dict[str, Any] = {"code": error.status, "message": error.message, "status": error.type}
    if details := list(_details(error)):
        body["details"] = details
    return {"error": body}


def _details(error: VendorError) -> Iterator[dict[str, Any]]:
    kind = "type.googleapis.com/google.rpc."
    if error.param:
        violation = {"field": error.param, "description": error.message}
        yield {"@type": f"{kind}BadRequest", "fieldViolations": [violation]}
    if error.code and error.type == EXHAUSTED:
        yield {"@type": f"{kind}QuotaFailure", "violations": [{"quotaId": error.code}]}
        # Also where the day's quota is gone. Short, as nobody here has time to wait.
        yield {"@type": f"{kind}RetryInfo", "retryDelay": "0.105s"}
    elif error.code:
        yield {"@type": f"{kind}ErrorInfo", "reason": error.code, "domain": "googleapis.com"}


def _array(events: Sequence[tuple[dict[str, Any], bool]]) -> Iterator[Piece]:
    """What a stream is unless events are asked for."""
    for number, (data, is_chunk) in enumerate(events):
        yield Piece((b"," if number else b"[") + to_json(data), is_chunk)
    yield Piece(b"]")


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + to_json(data) + b"\r\n\r\n"
