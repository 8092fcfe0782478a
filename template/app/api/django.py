"""Django Ninja: routes and the OpenAPI document. What the routes do stands in `Endpoints`.

Ninja reads Django's settings when it is imported, so they are made here, and this file has to be
imported before `app.routes`, as `app.wiring` does.
"""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from functools import cache
from http import HTTPStatus
from io import BytesIO
from typing import Any

import django
import orjson
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.urls import Resolver404, URLPattern

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import InvalidBody, ServiceError
from .asgi import CALLER_KEY, Api
from .endpoints import Answer, Endpoints
from .openapi import DESCRIPTION, VERSION, complete_document, problem_response
from .problems import framework_error

if not settings.configured:
    settings.configure(
        # The log, the hosts and the size of a request are the Gateway's affair.
        LOGGING_CONFIG=None,
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        DATA_UPLOAD_MAX_NUMBER_FIELDS=None,
        # For `/docs` alone.
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )

from ninja import NinjaAPI, Router
from ninja.errors import HttpError, ValidationError, ValidationErrorContext
from ninja.openapi.docs import Swagger
from ninja.parser import Parser


class Request(ASGIRequest):
    """What a view takes as its `request`. Models are called through `request.chat`; hand
    `request.caller` to its `complete`, `stream` and `admit`."""

    caller: Caller
    chat: GuardedChat


def create_api(endpoints: Endpoints, routes: Router, *, title: str, docs: bool) -> Api:
    """The service's routes and the owner's, with `/docs` and `/openapi.json` if wanted."""
    django.setup(set_prefix=False)
    api = _Ninja(
        title=title,
        version=VERSION,
        description=DESCRIPTION,
        parser=_Parser(),
        # Ninja's own routes for these take any method.
        openapi_url=None,
        docs_url=None,
    )
    _add_routes(api, endpoints)
    if docs:
        _add_documentation(api)
    api.add_router("", routes)
    _add_error_handlers(api, endpoints)
    url_patterns = _url_patterns(api)
    handler = _Handler(api, endpoints.chat, url_patterns)
    return Api(handler, _route_templates(url_patterns))  # type: ignore[arg-type]  # a scope is a dict


def _url_patterns(api: NinjaAPI) -> tuple[URLPattern, ...]:
    """Without Ninja's route for `/`, which has no answer but 404."""
    return tuple(
        pattern
        for pattern in api.urls[0]
        if isinstance(pattern, URLPattern) and pattern.name != "api-root"
    )


def _route_templates(url_patterns: Sequence[URLPattern]) -> list[str]:
    """Of the types of parameters only `path` matters to the Gateway."""
    routes = [f"/{pattern.pattern}" for pattern in url_patterns]
    paths = [re.sub(r"<path:(\w+)>", r"{\1:path}", route) for route in routes]
    return [re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path) for path in paths]


def _add_routes(api: NinjaAPI, endpoints: Endpoints) -> None:
    @api.post("/v1/chat/completions", include_in_schema=False)
    async def create_chat_completion(request: Request) -> HttpResponseBase:
        return _response(await endpoints.chat_completions(request.caller))

    @api.get("/v1/models", include_in_schema=False)
    async def list_models(request: Request) -> HttpResponseBase:
        return _response(endpoints.models())

    @api.get("/livez", include_in_schema=False)
    async def live(request: Request) -> HttpResponseBase:
        return _response(endpoints.live())

    @api.get("/readyz", include_in_schema=False)
    async def ready(request: Request) -> HttpResponseBase:
        return _response(await endpoints.ready())

    @api.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> HttpResponseBase:
        return _response(endpoints.metrics())


def _add_error_handlers(api: NinjaAPI, endpoints: Endpoints) -> None:
    def problem(request: Request, error: ServiceError) -> HttpResponseBase:
        return _response(endpoints.problem(error, request.caller))

    def http_error(request: Request, status: int, detail: str) -> HttpResponseBase:
        detail = detail or HTTPStatus(status).phrase
        return problem(request, framework_error(status, detail, None, str(request.method)))

    api.exception_handler(ServiceError)(problem)

    @api.exception_handler(ValidationError)
    def invalid_body(request: Request, error: ValidationError) -> HttpResponseBase:
        first = error.errors[0]
        name = ".".join(str(part) for part in first["loc"])
        return problem(request, InvalidBody(f"{name}: {first['msg']}.", param=name))

    @api.exception_handler(HttpError)
    def ninja_error(request: Request, error: HttpError) -> HttpResponseBase:
        if isinstance(error.__cause__, InvalidBody):  # the parser's
            return problem(request, error.__cause__)
        return http_error(request, error.status_code, error.message)

    @api.exception_handler(Http404)
    def not_found(request: Request, error: Http404) -> HttpResponseBase:
        return http_error(request, 404, "" if isinstance(error, Resolver404) else str(error))

    @api.exception_handler(PermissionDenied)
    def forbidden(request: Request, error: PermissionDenied) -> HttpResponseBase:
        return http_error(request, 403, str(error))

    @api.exception_handler(BadRequest)
    @api.exception_handler(SuspiciousOperation)
    def bad_request(request: Request, error: Exception) -> HttpResponseBase:
        return http_error(request, 400, str(error))


def _response(answer: Answer) -> HttpResponseBase:
    if isinstance(answer.body, bytes):
        return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
    return StreamingHttpResponse(answer.body, status=answer.status, headers=answer.headers)


class _Ninja(NinjaAPI):
    """Ninja, with bodies, content types and the names of parameters as everywhere."""

    def get_content_type(self) -> str:
        return "application/json"

    def validation_error_from_error_contexts(
        self, error_contexts: list[ValidationErrorContext[Any]]
    ) -> ValidationError:
        """Without the name of the view's only body parameter, which the caller does not send."""
        error = super().validation_error_from_error_contexts(error_contexts)
        only = {getattr(c.model, "__read_from_single_attr__", None) for c in error_contexts}
        for each in error.errors:
            source, name, *inside = each["loc"]
            if source == "body" and name in only:
                each["loc"] = (source, *inside)
        return error


class _Parser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        try:
            return orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise InvalidBody("body: it is no valid JSON.", param="body") from None


# The OpenAPI document


class _Docs(Swagger):
    def get_openapi_url(self, api: NinjaAPI, path_params: dict[str, Any]) -> str:
        return "/openapi.json"


def _add_documentation(api: NinjaAPI) -> None:
    @cache
    def describe() -> dict[str, Any]:
        document = api.get_openapi_schema(path_prefix="")
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"]["default"] = problem_response()
        return complete_document(document)

    @api.api_operation(["GET", "HEAD"], "/openapi.json", include_in_schema=False)
    async def document(request: Request) -> dict[str, Any]:
        return describe()

    @api.api_operation(["GET", "HEAD"], "/docs", include_in_schema=False)
    async def page(request: Request) -> HttpResponse:
        return _Docs().render_page(request, api)


# Between the Gateway and the views


class _Handler(ASGIHandler):
    """Django's, without what the Gateway does already, and without the threads that Django starts
    at every request to write a log line, close the response and send signals.

    Middleware does not run, and no signal reaches a thread in which Django would use a database.
    """

    def __init__(
        self, api: NinjaAPI, chat: GuardedChat, url_patterns: Sequence[URLPattern]
    ) -> None:
        super().__init__()
        self._api = api
        self._chat = chat
        self._url_patterns = url_patterns

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()  # the body; the Gateway has it
        request = self._request(scope)
        response = await self._respond(request)
        try:
            if response.streaming:
                await _until_left(self.send_response(response, send), receive)
            else:
                await self.send_response(response, send)
        finally:
            response.close()
            request.close()

    def _request(self, scope: dict[str, Any]) -> Request:
        caller: Caller = scope[CALLER_KEY]
        request = Request(scope, BytesIO(caller.body))
        request.caller = caller
        request.chat = self._chat
        request.urlconf = self._url_patterns  # type: ignore[assignment]  # not only a module's name
        return request

    async def _respond(self, request: Request) -> HttpResponseBase:
        """Raises what a view raises, save what Ninja has a handler for."""
        try:
            response: HttpResponseBase = await self._get_response_async(request)  # type: ignore[attr-defined]
        except Resolver404 as unknown:
            response = self._api.on_exception(request, unknown)
        if isinstance(response, HttpResponseNotAllowed):
            refused = framework_error(405, "", {"Allow": response["Allow"]}, request.method)
            response = self._api.on_exception(request, refused)
        if isinstance(response, HttpResponse) and response.status_code not in (204, 304):
            response.headers.setdefault("Content-Length", str(len(response.content)))
        return response


async def _until_left(sending: Coroutine[Any, Any, None], receive: Any) -> None:
    """Ends the response early when nobody reads it any more."""
    task = asyncio.ensure_future(sending)
    left = asyncio.ensure_future(receive())
    left.add_done_callback(lambda _: task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        if not left.done():
            raise
    finally:
        left.cancel()
