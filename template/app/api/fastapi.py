"""FastAPI: routes and the OpenAPI document. What the routes do stands in `Endpoints`."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import EndpointError, InvalidBody, MethodNotAllowed, NotFound, ServiceError
from .asgi import CALLER_KEY, Scope
from .endpoints import Answer, Endpoints
from .openapi import DESCRIPTION, chat_completions_docs, complete_document


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER_KEY]
    return caller


# Not plain functions: FastAPI would run those in a thread, at every request.
async def _current_caller(request: Request) -> Caller:
    return _caller(request)


async def _chat(request: Request) -> GuardedChat:
    endpoints: Endpoints = request.app.state.endpoints
    return endpoints.chat


Chat = Annotated[GuardedChat, Depends(_chat)]
"""What a route calls models through."""

CurrentCaller = Annotated[Caller, Depends(_current_caller)]
"""Who is calling; hand it to `chat.complete`, `chat.stream` or `chat.admit`."""


def create_api(endpoints: Endpoints, routes: APIRouter, *, title: str, docs: bool) -> FastAPI:
    """The service's routes and the owner's, with `/docs` and `/openapi.json` if wanted."""
    api = FastAPI(
        title=title,
        description=DESCRIPTION,
        docs_url="/docs" if docs else None,
        openapi_url="/openapi.json" if docs else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.endpoints = endpoints
    _add_routes(api, endpoints)
    api.include_router(routes)
    _add_error_handlers(api, endpoints)
    describe = api.openapi
    api.openapi = lambda: complete_document(describe())  # type: ignore[method-assign]
    return api


def route_of(api: FastAPI, scope: Scope) -> str | None:
    """The template of the route that a request takes, such as `/items/{id}`."""
    taken = scope.get("route")
    if taken is None:
        taken = next((r for r in api.routes if r.matches(scope)[0] is not Match.NONE), None)
    path: str | None = getattr(taken, "path", None)
    return path


def _add_routes(api: FastAPI, endpoints: Endpoints) -> None:
    @api.post("/v1/chat/completions", tags=["chat"], **chat_completions_docs())
    async def create_chat_completion(caller: CurrentCaller) -> Response:
        return _response(await endpoints.chat_completions(caller))

    @api.get("/v1/models", tags=["chat"])
    async def list_models() -> Response:
        return _response(endpoints.models())

    @api.get("/livez", tags=["operations"])
    async def live() -> Response:
        return _response(endpoints.live())

    @api.get("/readyz", tags=["operations"])
    async def ready() -> Response:
        return _response(await endpoints.ready())

    @api.get("/metrics", tags=["operations"])
    async def metrics() -> Response:
        return _response(endpoints.metrics())


def _add_error_handlers(api: FastAPI, endpoints: Endpoints) -> None:
    @api.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return _response(endpoints.problem(error, _caller(request)))

    @api.exception_handler(RequestValidationError)
    async def invalid_body(request: Request, error: RequestValidationError) -> Response:
        first: dict[str, Any] = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        problem = InvalidBody(f"{name}: {first['msg']}.", param=name)
        return _response(endpoints.problem(problem, _caller(request)))

    @api.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        return _response(endpoints.problem(_as_problem(error, request), _caller(request)))


def _as_problem(error: HTTPException, request: Request) -> ServiceError:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    match error.status_code:
        case 404 if error.detail == HTTPStatus.NOT_FOUND.phrase:
            return NotFound("There is no such route.", headers=headers)
        case 404:
            return NotFound(str(error.detail), headers=headers)
        case 405:
            allow = headers.get("allow", "other methods")
            return MethodNotAllowed(
                f"This route takes {allow}, not {request.method}.", headers=headers
            )
        case _:
            return EndpointError(str(error.detail), status=error.status_code, headers=headers)


def _response(answer: Answer) -> Response:
    if isinstance(answer.body, bytes):
        return Response(answer.body, answer.status, answer.headers)
    return StreamingResponse(answer.body, answer.status, answer.headers)
