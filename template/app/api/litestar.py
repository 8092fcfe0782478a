"""Litestar: routes and the OpenAPI document. What the routes do stands in `Endpoints`."""

import re
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from litestar import Litestar, Request, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.enums import MediaType
from litestar.exceptions import (
    HTTPException,
    LitestarException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.response import Response, Stream

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import InvalidBody, ServiceError
from .asgi import CALLER_KEY, Api
from .endpoints import Answer, Endpoints
from .openapi import DESCRIPTION, VERSION, complete_document, problem_response
from .problems import framework_error

AnyRequest = Request[Any, Any, Any]

Chat = NamedDependency[GuardedChat]
"""What a route calls models through; its parameter is called `chat`."""

CurrentCaller = NamedDependency[Caller]
"""Who is calling, in a parameter called `caller`; hand it to `chat.complete`, `chat.stream` or
`chat.admit`."""


def create_api(endpoints: Endpoints, routes: Router, *, title: str, docs: bool) -> Api:
    """The service's routes and the owner's, with `/docs` and `/openapi.json` if wanted."""
    description = OpenAPIConfig(
        title=title,
        version=VERSION,
        description=DESCRIPTION,
        path="/docs",
        render_plugins=[_Docs(path="/")],
    )
    api = Litestar(
        [*_service_routes(endpoints), *([_document] if docs else []), routes],
        dependencies={
            "caller": Provide(_current_caller),
            "chat": Provide(lambda: endpoints.chat, sync_to_thread=False),
        },
        exception_handlers=_error_handlers(endpoints),
        before_request=_require_exact_path,
        openapi_config=description if docs else None,
        # Both are the Gateway's: one line a request, and no traceback in an answer.
        logging_config=None,
        debug=False,
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await api(scope, receive, send)
        except LitestarException as error:
            raised = _as_raised(error)
            raise raised from raised.__cause__

    # Of the types of parameters only `path` matters to the Gateway.
    templates = [re.sub(r":(?!path\})\w+\}", "}", route.path) for route in api.routes]
    return Api(app, templates)


def _as_raised(error: LitestarException) -> BaseException:
    """What ended a response that had begun, out of Litestar's wrapper and its task group's."""
    inner: BaseException = error.__cause__ or error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner


def _caller(request: AnyRequest) -> Caller:
    caller: Caller = cast(dict[str, Any], request.scope)[CALLER_KEY]
    return caller


async def _current_caller(request: AnyRequest) -> Caller:
    return _caller(request)


async def _require_exact_path(request: AnyRequest) -> None:
    """Litestar takes `/x/` and `//x` for `/x`; elsewhere they are other paths."""
    if unquote_to_bytes(request.scope["raw_path"]).decode("utf-8", "replace") != request.url.path:
        raise NotFoundException


def _service_routes(endpoints: Endpoints) -> list[BaseRouteHandler]:
    @post("/v1/chat/completions", status_code=200, include_in_schema=False)
    async def create_chat_completion(caller: CurrentCaller) -> Response[bytes] | Stream:
        return _response(await endpoints.chat_completions(caller))

    @get("/v1/models", include_in_schema=False)
    async def list_models() -> Response[bytes] | Stream:
        return _response(endpoints.models())

    @get("/livez", include_in_schema=False)
    async def live() -> Response[bytes] | Stream:
        return _response(endpoints.live())

    @get("/readyz", include_in_schema=False)
    async def ready() -> Response[bytes] | Stream:
        return _response(await endpoints.ready())

    @get("/metrics", include_in_schema=False)
    async def metrics() -> Response[bytes] | Stream:
        return _response(endpoints.metrics())

    return [create_chat_completion, list_models, live, ready, metrics]


def _error_handlers(endpoints: Endpoints) -> dict[type[Exception] | int, Any]:
    def problem(error: ServiceError, request: AnyRequest) -> Response[bytes] | Stream:
        return _response(endpoints.problem(error, _caller(request)))

    def service_error(request: AnyRequest, error: ServiceError) -> Response[bytes] | Stream:
        return problem(error, request)

    def invalid_body(request: AnyRequest, error: ValidationException) -> Response[bytes] | Stream:
        first = error.extra[0] if isinstance(error.extra, list) else {"message": error.detail}
        if first.get("key") == "data":
            first = {"message": "Field required"}  # no body at all
        name = ".".join(filter(None, (first.get("source", "body"), first.get("key"))))
        return problem(InvalidBody(f"{name}: {first['message']}.", param=name), request)

    def http_exception(request: AnyRequest, error: HTTPException) -> Response[bytes] | Stream:
        if isinstance(error.__cause__, SerializationException):
            return problem(InvalidBody("body: it is no valid JSON.", param="body"), request)
        found = framework_error(error.status_code, error.detail, error.headers, request.method)
        return problem(found, request)

    def crash(_: AnyRequest, error: Exception) -> Response[bytes]:
        # Without this, Litestar would answer and the Gateway would not hear of it.
        raise error

    return {
        ServiceError: service_error,
        ValidationException: invalid_body,
        HTTPException: http_exception,
        Exception: crash,
    }


def _response(answer: Answer) -> Response[bytes] | Stream:
    if isinstance(answer.body, bytes):
        return Response(answer.body, status_code=answer.status, headers=answer.headers)
    return Stream(answer.body, status_code=answer.status, headers=answer.headers)


# The OpenAPI document


class _Docs(SwaggerRenderPlugin):
    @staticmethod
    def get_openapi_json_route(request: AnyRequest) -> str:
        return "/openapi.json"


@get("/openapi.json", media_type=MediaType.JSON, include_in_schema=False)
async def _document(request: AnyRequest) -> dict[str, Any]:
    document = request.app.openapi_schema.to_schema()
    for path in document.get("paths", {}).values():
        for operation in path.values():
            operation["responses"] = _in_our_form(operation["responses"])
    return complete_document(document)


def _in_our_form(responses: dict[str, Any]) -> dict[str, Any]:
    """Without the errors as Litestar writes them: here they are problem documents."""
    successes = {status: text for status, text in responses.items() if status.startswith("2")}
    return {**successes, "default": problem_response()}
