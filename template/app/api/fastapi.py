"""FastAPI: routes and the OpenAPI document. What the routes do stands in `Endpoints`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from ..caller import Caller
from ..chat import GuardedChat
from ..errors import InvalidBody, ServiceError
from .asgi import CALLER_KEY, Api
from .endpoints import Answer, Endpoints
from .openapi import DESCRIPTION, VERSION, complete_document, problem_response
from .problems import framework_error


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


def create_api(endpoints: Endpoints, routes: APIRouter, *, title: str, docs: bool) -> Api:
    """The service's routes and the owner's, with `/docs` and `/openapi.json` if wanted."""
    api = FastAPI(
        title=title,
        version=VERSION,
        description=DESCRIPTION,
        responses={"default": problem_response()},
        docs_url="/docs" if docs else None,
        openapi_url="/openapi.json" if docs else None,
        redoc_url=None,
        redirect_slashes=False,
        # Spans, figures and redacted errors are the outermost layer's (`app/api/asgi.py`).
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    api.state.endpoints = endpoints
    _add_routes(api, endpoints)
    api.include_router(routes)
    _add_error_handlers(api, endpoints)
    describe = api.openapi
    api.openapi = lambda: complete_document(describe())  # type: ignore[method-assign]
    return Api(api, _route_templates(api))


def _route_templates(api: FastAPI) -> list[str]:
    """What is mounted counts as one route."""
    return [
        f"{route.path}/{{rest:path}}" if isinstance(route.original_route, Mount) else route.path
        for route in iter_route_contexts(api.routes)
        if route.path is not None
    ]


def _add_routes(api: FastAPI, endpoints: Endpoints) -> None:
    async def create_chat_completion(request: Request) -> Response:
        return _response(await endpoints.chat_completions(_caller(request)))

    # A plain route: it has no parameters for FastAPI to solve, which costs more than to route.
    api.add_route(
        "/v1/chat/completions", create_chat_completion, methods=["POST"], include_in_schema=False
    )

    @api.get("/v1/models", include_in_schema=False)
    async def list_models() -> Response:
        return _response(endpoints.models())

    @api.get("/livez", include_in_schema=False)
    async def live() -> Response:
        return _response(endpoints.live())

    @api.get("/readyz", include_in_schema=False)
    async def ready() -> Response:
        return _response(await endpoints.ready())

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return _response(endpoints.metrics())


def _add_error_handlers(api: FastAPI, endpoints: Endpoints) -> None:
    @api.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return _response(endpoints.problem(error, _caller(request)))

    @api.exception_handler(RequestValidationError)
    async def invalid_body(request: Request, error: RequestValidationError) -> Response:
        first: dict[str, Any] = error.errors()[0]
        if first["type"] == "json_invalid":
            problem = InvalidBody("body: it is no valid JSON.", param="body")
        else:
            name = ".".join(str(part) for part in first["loc"])
            problem = InvalidBody(f"{name}: {first['msg']}.", param=name)
        return _response(endpoints.problem(problem, _caller(request)))

    @api.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        problem = framework_error(
            error.status_code, str(error.detail), error.headers, request.method
        )
        return _response(endpoints.problem(problem, _caller(request)))


def _response(answer: Answer) -> Response:
    if isinstance(answer.body, bytes):
        return Response(answer.body, answer.status, answer.headers)
    return StreamingResponse(answer.body, answer.status, answer.headers)
