"""Where Quart has ways of its own that the script does not meet."""

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.server import Sandbox

from ..rendering import render, take_snapshot
from ..service.serving import Project, Service, eventually
from .test_frameworks import ROUTES, variables

OWNERS = """

from quart import current_app, request


@router.get("/folder/")
async def folder() -> str:
    return "open"


@router.get("/files/<path:rest>")
async def file(rest: str) -> str:
    return rest


@router.route("/both", methods=["GET", "HEAD"])
async def both() -> str:
    return "both"


@router.get("/gone")
async def gone() -> Response:
    abort(410, response=Response("Moved out.", 410, mimetype="text/plain"))


@router.get("/asks")
async def asks() -> str:
    return request.args["what"]


@router.get("/waits")
async def waits() -> str:
    other = asyncio.ensure_future(asyncio.sleep(3600))
    other.cancel()
    await other
    return "late"


@router.get("/limits")
async def limits() -> dict[str, object]:
    names = ("BODY_TIMEOUT", "MAX_CONTENT_LENGTH", "RESPONSE_TIMEOUT")
    return {name: current_app.config[name] for name in names}


@router.get("/slow")
async def slow() -> str:
    print("the slow view has begun", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("the slow view has ended", flush=True)
    return "slow"
"""
JSON = {"content-type": "application/json"}
DEBUG = {"FLASK_DEBUG": "1", "QUART_DEBUG": "1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A service with the owner's routes of the script and some more."""
    folder = tmp_path_factory.mktemp("quart")
    root = folder / "service"
    render(take_snapshot(tmp_path_factory.mktemp("template")), root, {"framework": "quart"})
    routes = root / "app" / "routes.py"
    shutil.copyfile(ROUTES / "quart.py", routes)
    with routes.open("a", encoding="utf-8") as more:
        more.write(OWNERS)
    with Sandbox.in_thread() as sandbox:
        yield Project(root, variables(sandbox), folder / "service.db")


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[Service]:
    """In an environment that asks Flask's debugger in."""
    with project.serve(**DEBUG) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> httpx.Client:
    return service.http("key-of-caller-of-owners")


@pytest.mark.parametrize("body", [b'{"text": "\xff"}', b"[" * 30_000], ids=["utf-8", "depth"])
def test_a_body_that_cannot_be_parsed_is_no_crash(client: httpx.Client, body: bytes) -> None:
    """Bytes that are no UTF-8 and endless nesting are the caller's fault."""
    response = client.post("/summaries", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "body"


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 80}.com", "a:99999x", "not a host", "\xff"])
def test_no_host_makes_a_crash(client: httpx.Client, host: str) -> None:
    """Routes do not depend on the `Host` that the caller claims."""
    response = client.get("/v1/models", headers=[(b"host", host.encode("latin-1"))])
    assert response.status_code == 200


def test_a_missing_slash_is_another_path(client: httpx.Client) -> None:
    """Nothing is redirected to the route that has a slash more, or fewer."""
    assert client.get("/folder/").status_code == 200
    assert client.get("/folder?page=1").status_code == 404
    assert client.get("/v1//models").status_code == 404
    assert client.post("/folder/").headers["allow"] == "GET"


def test_the_log_has_the_routes_template(service: Service, client: httpx.Client) -> None:
    """A converter that takes slashes is one parameter of the route."""
    response = client.get("/files/a/b/c.txt")
    assert response.text == "a/b/c.txt"
    line = service.line_of(response.headers["x-request-id"])
    assert line["route"] == "/files/{rest:path}"


def test_a_head_is_answered_where_the_owner_says_so(client: httpx.Client) -> None:
    """A view takes the methods that it names."""
    assert client.head("/both").status_code == 200
    assert client.head("/lost").status_code == 405


def test_a_response_that_is_aborted_with_goes_out(client: httpx.Client) -> None:
    """`abort` with a response of the owner's answers with that one."""
    response = client.get("/gone")
    assert (response.status_code, response.text) == (410, "Moved out.")


def test_no_environment_hides_a_crash(service: Service, client: httpx.Client) -> None:
    """FLASK_DEBUG does not turn a crash into a page, of which the log would not know the error."""
    response = client.get("/crash")
    assert response.headers["content-type"] == "application/problem+json"
    line = service.line_of(response.headers["x-request-id"])
    assert (line["status"], line["error_type"]) == (500, "RuntimeError")


def test_a_view_that_awaits_what_was_cancelled_has_crashed(
    service: Service, client: httpx.Client
) -> None:
    """It is answered and logged as any other bug, and not as a caller's leaving."""
    response = client.get("/waits")
    line = service.line_of(response.headers["x-request-id"])
    assert (response.status_code, line["outcome"]) == (500, "crashed")


def test_an_error_without_words_has_its_name(client: httpx.Client) -> None:
    """What Quart raises by itself is said as briefly as elsewhere."""
    response = client.get("/asks")
    assert (response.status_code, response.json()["detail"]) == (400, "Bad Request")


def test_quart_limits_nothing_by_itself(client: httpx.Client) -> None:
    """Neither a stream of more than a minute nor a body that the Gateway lets in is cut off."""
    limits = client.get("/limits").json()
    assert limits == {"BODY_TIMEOUT": None, "MAX_CONTENT_LENGTH": None, "RESPONSE_TIMEOUT": None}


def test_a_view_ends_with_its_request(project: Project) -> None:
    """A view that outlasts the grace period is cancelled with its request."""
    with project.serve(GRACE_PERIOD_SECONDS="1") as service, ThreadPoolExecutor(1) as pool:
        client = service.http("key-of-caller-of-owners")
        cut_off = pool.submit(client.get, "/slow")
        eventually(lambda: "the slow view has begun" in service.output())
        service.signal(signal.SIGTERM)
        eventually(lambda: service.process.poll() is not None)
        assert cut_off.exception() or cut_off.result().status_code >= 500
        output = eventually(service.output)
    assert output.index("the slow view has ended") < output.index('"stopped"')
