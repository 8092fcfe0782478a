"""Quart: routes and the OpenAPI document. What the routes do stands in `Endpoints`."""

import asyncio
import re
from http import HTTPStatus
from typing import Any, Final, NoReturn, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from pydantic import ValidationError
from quart import Blueprint, Quart, Request, Response, abort, current_app, request
from quart.asgi import ASGIHTTPConnection
from quart.routing import QuartMap, QuartRule
from quart.typing import ResponseReturnValue
from quart.wrappers.base import BaseRequestWebsocket
from quart_schema import Info, OpenAPIProvider, QuartSchema, RequestSchemaValidationError, hide
from quart_schema.validation import QuerystringValidationError, RequestHeadersValidationError
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.routing import Map, MapAdapter, RequestRedirect, Rule

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import InvalidBody, ServiceError
from .asgi import CALLER_KEY, Api, ASGIApp
from .endpoints import Answer, Endpoints
from .openapi import DESCRIPTION, VERSION, complete_document, problem_response
from .problems import framework_error

_ENDPOINTS: Final = "endpoints"
_VARIABLE = re.compile(r"<(?:(?P<converter>\w+)(?:\(.*?\))?:)?(?P<name>\w+)>")


def current_chat() -> GuardedChat:
    """What a view calls models through."""
    endpoints: Endpoints = current_app.extensions[_ENDPOINTS]
    return endpoints.chat


def current_caller() -> Caller:
    """Who is calling; hand it to `chat.complete`, `chat.stream` or `chat.admit`.

    Call it in the view: while a stream goes out, Quart has no current request any more.
    """
    caller: Caller = cast(dict[str, Any], request.scope)[CALLER_KEY]
    return caller


def create_api(endpoints: Endpoints, routes: Blueprint, *, title: str, docs: bool) -> Api:
    """The service's routes and the owner's, with `/docs` and `/openapi.json` if wanted."""
    api = _App("app", static_folder=None)
    api.config.update(
        # An owner's exception reaches the Gateway as it was raised, and no traceback the caller,
        # whatever FLASK_DEBUG says.
        PROPAGATE_EXCEPTIONS=True,
        DEBUG=False,
        # Limits are the Gateway's and the guardrails'.
        MAX_CONTENT_LENGTH=None,
        BODY_TIMEOUT=None,
        RESPONSE_TIMEOUT=None,
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    api.url_map.merge_slashes = False
    api.extensions[_ENDPOINTS] = endpoints
    QuartSchema(
        api,
        openapi_path="/openapi.json" if docs else None,
        swagger_ui_path="/docs",
        redoc_ui_path=None,
        scalar_ui_path=None,
        info=Info(title=title, version=VERSION, description=DESCRIPTION),
        conversion_preference="pydantic",
        openapi_provider_class=_Document,
    )
    _add_routes(api, endpoints)
    api.before_request(_require_exact_path)
    api.register_blueprint(routes)
    _add_error_handlers(api, endpoints)
    templates = [_template(rule, api.url_map) for rule in api.url_map.iter_rules()]
    return Api(cast(ASGIApp, api), templates)


def _template(rule: Rule, url_map: Map) -> str:
    """`/items/{id}` for `/items/<int:id>`; a converter that takes slashes is of the type `path`."""

    def parameter(match: re.Match[str]) -> str:
        converter = url_map.converters[match["converter"] or "default"]
        return f"{{{match['name']}{'' if converter.part_isolating else ':path'}}}"

    return _VARIABLE.sub(parameter, rule.rule)


def _add_routes(api: Quart, endpoints: Endpoints) -> None:
    @api.post("/v1/chat/completions")
    @hide
    async def create_chat_completion() -> Response:
        return _response(await endpoints.chat_completions(current_caller()))

    @api.get("/v1/models")
    @hide
    async def list_models() -> Response:
        return _response(endpoints.models())

    @api.get("/livez")
    @hide
    async def live() -> Response:
        return _response(endpoints.live())

    @api.get("/readyz")
    @hide
    async def ready() -> Response:
        return _response(await endpoints.ready())

    @api.get("/metrics")
    @hide
    async def metrics() -> Response:
        return _response(endpoints.metrics())


def _add_error_handlers(api: Quart, endpoints: Endpoints) -> None:
    def problem(error: ServiceError) -> Response:
        return _response(endpoints.problem(error, current_caller()))

    @api.errorhandler(ServiceError)
    async def service_error(error: ServiceError) -> Response:
        return problem(error)

    @api.errorhandler(RequestSchemaValidationError)
    async def invalid_body(error: RequestSchemaValidationError) -> Response:
        name, message = _place(error), str(error.validation_error)
        if isinstance(error.validation_error, ValidationError):
            first = error.validation_error.errors()[0]
            name = ".".join((name, *(str(part) for part in first["loc"])))
            message = first["msg"]
        return problem(InvalidBody(f"{name}: {message}.", param=name))

    @api.errorhandler(HTTPException)
    async def http_exception(error: HTTPException) -> ResponseReturnValue:
        if error.response is not None:
            return error.get_response()
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        return problem(framework_error(status, _detail(error), headers, request.method))


def _place(error: RequestSchemaValidationError) -> str:
    match error:
        case QuerystringValidationError():
            return "query"
        case RequestHeadersValidationError():
            return "header"
        case _:
            return "body"


def _detail(error: HTTPException) -> str:
    """The owner's words; of those that come with the status, its name."""
    standard = default_exceptions.get(error.code or 0, HTTPException).description
    own = error.description if error.description != standard else None
    return own or error.name


async def _require_exact_path() -> None:
    """Quart takes `//x` for `/x`, and sends from `/x` to `/x/`; elsewhere they are other paths."""
    if request.scope["path"] != request.path or _lacks_slash(request.routing_exception):
        abort(HTTPStatus.NOT_FOUND)


def _lacks_slash(error: Exception | None) -> bool:
    return isinstance(error, RequestRedirect) and error.new_url.partition("?")[0].endswith(
        f"{request.path}/"
    )


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers)


# Quart's classes, without what they do in a way of their own


class _Map(QuartMap):
    def bind_to_request(
        self, request: BaseRequestWebsocket, subdomain: str | None, server_name: str | None
    ) -> MapAdapter:
        """Routes depend on neither `Host` nor query; Quart crashes where it cannot read them."""
        try:
            return super().bind_to_request(request, subdomain, server_name)
        except (HTTPException, UnicodeError):
            return self.bind("localhost", path_info=request.path, default_method=request.method)


class _Rule(QuartRule):
    """Takes the methods that it was given, without HEAD for GET."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.methods is not None:
            self.methods &= set(options["methods"])


class _Connection(ASGIHTTPConnection):
    """Cancels the view with its request, which Quart leaves running."""

    _handler: asyncio.Task[None] | None = None

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await super().__call__(receive, send)
        except asyncio.CancelledError:
            if self._handler is not None:
                self._handler.cancel()
                await asyncio.gather(self._handler, return_exceptions=True)
            raise

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        self._handler = asyncio.current_task()
        try:
            await super().handle_request(request, send)
        except asyncio.CancelledError as error:
            if self._handler is None or self._handler.cancelling() or self._caller_has_left:
                raise
            # Quart would end without an answer, as if the caller had left.
            raise RuntimeError("The view awaited something that was cancelled.") from error

    @property
    def _caller_has_left(self) -> bool:
        """Then the stream that the view waits for is cancelled."""
        caller: Caller = cast(dict[str, Any], self.scope)[CALLER_KEY]
        return caller.record.outcome == "disconnected"


class _Request(Request):
    """Whatever cannot be parsed is the caller's fault."""

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        try:
            return await super().get_json(force, silent, cache)
        except (UnicodeDecodeError, RecursionError) as error:
            return None if silent else self.on_json_loading_failed(error)

    def on_json_loading_failed(self, error: Exception) -> NoReturn:
        empty = getattr(error, "doc", None) == ""
        message = "Field required" if empty else "it is no valid JSON"
        raise InvalidBody(f"body: {message}.", param="body") from None


class _App(Quart):
    asgi_http_class = _Connection
    request_class = _Request
    url_map_class = _Map
    url_rule_class = _Rule


class _Document(OpenAPIProvider):
    """Adds errors, answers without a schema, and that a body is needed."""

    def schema(self) -> dict[str, Any]:
        document: dict[str, Any] = super().schema()
        for path in document["paths"].values():
            for operation in path.values():
                successes = operation["responses"] or {200: {"description": "Success."}}
                operation["responses"] = {
                    **{str(status): success for status, success in successes.items()},
                    "default": problem_response(),
                }
                if "requestBody" in operation:
                    operation["requestBody"]["required"] = True
        return complete_document(document)
