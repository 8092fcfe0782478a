"""The dashboard and the alerts that come with a service name what it really measures."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.faults import Fault
from sandbox.model import Reply
from sandbox.server import Sandbox

from ..metrics import Scrape
from ..promql import NotUnderstood, read
from ..rendering import set_policy
from .asking import body, calls
from .conftest import MakeProject
from .serving import Project, Service, eventually

pytestmark = pytest.mark.xdist_group("observability")

CHAT = "/v1/chat/completions"
ALONE = "openai/gpt-6-luna"
OWNERS_ROUTES = Path(__file__).parents[1] / "frameworks" / "routes" / "fastapi.py"
BY_PROMETHEUS = {"up": set[str]()}
"""What Prometheus says of a scrape by itself."""
ITS_LABELS = {"job", "instance"}
"""That it gives to all."""
GRID_COLUMNS = 24
NOBODY = "http://127.0.0.1:9/hook"
"""Where nobody listens."""
SETTINGS = {"MAX_ATTEMPTS": "1", "ALERT_WEBHOOK_URL": NOBODY, "RATE_LIMIT_REQUESTS": "1000"}
POLICY = {
    "BREAKER_FAILURES": "1",
    "BREAKER_COOL_DOWN_SECONDS": "0.2",
    "MAX_CONCURRENT_CALLS": "1",
    "ALERT_RETRY_SECONDS": "()",
}


@pytest.fixture(scope="module")
def project(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Its owner has an endpoint that crashes, a provider has one place and is not asked any more
    after its first failure."""
    project = make_project("observed")
    root = tmp_path_factory.mktemp("observed") / "service"
    shutil.copytree(project.root, root)
    shutil.copyfile(OWNERS_ROUTES, root / "app" / "routes.py")
    set_policy(root, POLICY)
    return Project(root, project.variables, project.store)


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[Service]:
    with project.serve(**SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def scrape(service: Service, _sandbox: Sandbox) -> Scrape:
    """What a service tells that has answered, streamed, refused, crashed and met failures."""
    _sandbox.reset()
    client = service.http("key-of-caller99")

    def ask(fault: Fault | None = None, **parameters: Any) -> None:
        _sandbox.script("openai", [fault] if fault else [])
        client.post(CHAT, json=body(**parameters))
        _sandbox.reset()

    ask()
    ask(stream=True)
    ask(Fault(error="invalid_api_key"))
    ask(Fault(error="content_policy"))
    ask(Fault(status=500))
    ask()  # the breaker is open
    client.get("/crash")
    service.line_of(client.get("/livez").headers["x-request-id"])
    client.get("/readyz")
    client.get("/metrics")
    return Scrape.of(client.get("/metrics").text)


@dataclass(frozen=True, slots=True)
class Known:
    """What may be named, and what may not."""

    scrape: Scrape

    def complaints(self, expression: str) -> list[str]:
        """Each metric, label or value of a label that the service does not have."""
        try:
            parsed = read(expression)
        except NotUnderstood as error:
            return [str(error)]
        known = self.scrape.labels() | BY_PROMETHEUS
        found = [
            f"there is no metric {selector.metric}"
            for selector in parsed.selectors
            if selector.metric not in known
        ]
        for selector in parsed.selectors:
            for label, operator, value in selector.matchers:
                if label not in known.get(selector.metric, set()) | ITS_LABELS:
                    found.append(f"{selector.metric} has no label {label}")
                elif label not in ITS_LABELS:
                    found += self._unknown_values(selector.metric, label, operator, value)
        labels = set[str]().union(*(known.get(s.metric, set()) for s in parsed.selectors))
        found += [f"nothing has a label {name}" for name in parsed.grouped_by - labels - ITS_LABELS]
        return found

    def _unknown_values(self, metric: str, label: str, operator: str, value: str) -> list[str]:
        seen = {
            dict(labels)[label]
            for name, labels in self.scrape.series
            if name == metric and label in dict(labels)
        }
        wanted = value.split("|") if operator in ("=~", "!~") else [re.escape(value)]
        return [
            f"no {label} of {metric} is {pattern}"
            for pattern in wanted
            if not any(re.fullmatch(pattern, item) for item in seen)
        ]


@pytest.fixture(scope="module")
def known(scrape: Scrape) -> Known:
    return Known(scrape)


@pytest.fixture(scope="module")
def folder(project: Project) -> Path:
    return project.root / "observability"


@pytest.fixture(scope="module")
def dashboard(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def rules(folder: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((folder / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.promise("V4", "V6")
def test_alerts_name_what_is_measured(
    rules: list[dict[str, Any]], known: Known, subtests: pytest.Subtests
) -> None:
    """Each metric, each label and each value of one is there when the service is scraped."""
    for rule in rules:
        with subtests.test(rule["alert"]):
            assert known.complaints(rule["expr"]) == []


@pytest.mark.promise("V4")
def test_panels_name_what_is_measured(
    dashboard: dict[str, Any], known: Known, subtests: pytest.Subtests
) -> None:
    """The same holds for each panel, and for the variable that it is filtered by."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            with subtests.test(f"{panel['title']} {target['refId']}"):
                assert known.complaints(target["expr"]) == []
    query = next(v for v in dashboard["templating"]["list"] if v["name"] == "job")["query"]["query"]
    metric = re.fullmatch(r"label_values\((\w+), job\)", query)
    assert metric is not None and metric[1] in known.scrape.labels()


@pytest.mark.parametrize(
    "wrong",
    [
        'rate(http_request_total{job="x"}[5m])',
        'rate(http_requests_total{staus="200"}[5m])',
        'rate(http_requests_total{status="599"}[5m])',
        'http_requests_total{route!~"/livez|/redyz"}',
        "sum by (rout) (http_requests_total)",
        "summ(http_requests_total)",
        'llm_refusals_total{reason="context_length_exceded"}',
        "store_up == 0 or stor_up",
    ],
)
def test_a_name_that_is_misspelt_is_found(known: Known, wrong: str) -> None:
    """The tests above can fail."""
    assert len(known.complaints(wrong)) == 1


def test_everything_that_is_measured_is_shown(dashboard: dict[str, Any], scrape: Scrape) -> None:
    """No metric is measured for nobody."""
    shown = " ".join(t["expr"] for p in dashboard["panels"] for t in p.get("targets", ()))
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, _ in scrape.series}
    assert [name for name in sorted(families) if name not in shown] == []


def test_the_dashboard_can_be_imported(dashboard: dict[str, Any], folder: Path) -> None:
    """Panels have ids of their own, do not overlap, and ask the data source that is chosen."""
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] >= 0 and grid["x"] + grid["w"] <= GRID_COLUMNS
        own = {
            (grid["x"] + column, grid["y"] + line)
            for column in range(grid["w"])
            for line in range(grid["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"] and panel["description"].endswith(".")
    kinds = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "job": "query"}
    assert len(dashboard["uid"]) <= 40, "Grafana takes no longer one"
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert [title.partition(". ")[2] for title in rows if ". " in title] == [
        "Visibility",
        "Environment",
        "Availability",
        "Resources",
        "Context",
    ]


def test_each_alert_says_what_to_do(rules: list[dict[str, Any]], folder: Path) -> None:
    """It has a severity and the service's name, says in a sentence what is wrong, and then what
    helps; it has its case in the file that tests the alerts."""
    tested = (folder / "prometheus-alerts.test.yml").read_text(encoding="utf-8")
    names = [rule["alert"] for rule in rules]
    assert len(names) == len(set(names))
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["labels"]["service"] == "service"
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        assert 'job="service"' in rule["expr"], "another service's figures are not ours"
        assert f'alertname="{rule["alert"]}"' in tested


def scraped(service: Service) -> Scrape:
    return Scrape.of(service.http().get("/metrics").text)


@pytest.fixture
def answering(service: Service, sandbox: Sandbox, key: str) -> None:
    """The first provider is asked again, whatever it did in another test."""
    client = service.http(key)
    eventually(lambda: client.post(CHAT, json=body(model=ALONE)).status_code == 200)
    sandbox.reset()


@pytest.mark.promise("V4")
@pytest.mark.usefixtures("answering")
def test_no_callers_or_vendors_text_adds_a_series(
    service: Service, sandbox: Sandbox, key: str
) -> None:
    """Odd methods, paths, models, keys, headers, bodies and vendors' words: once a thing of each
    kind has been seen, another one of it is no new series."""
    client = service.http(key)

    def be_odd(word: str, odd_method: str) -> None:
        for method in (odd_method, "HEAD", "OPTIONS"):
            client.request(method, CHAT)
            client.request(method, f"/{word}/{word}?{word}={word}")
        client.get(f"/things/{word}")
        client.get(f"/v1/chat/completions/{word}")
        client.post(CHAT, json=body(model=word))
        client.post(CHAT, json=body(model=f"openai/{word}"))
        client.post(CHAT, json=body(**{word: word}))
        client.post(CHAT, json=body(), headers={"x-request-id": word, "idempotency-key": word})
        client.post(CHAT, json=body(user=word))
        client.post(CHAT, content=word)
        client.post(CHAT, json=body(), headers={"authorization": f"Bearer {word}"})
        sandbox.script("openai", [Reply(model=word)])
        client.post(CHAT, json=body(model=ALONE))
        error = {"error": {"message": word, "type": word, "code": word, "param": word}}
        sandbox.script("openai", [Fault(status=400, body=json.dumps(error))])
        client.post(CHAT, json=body())
        sandbox.reset()
        service.line_of(client.get("/metrics").headers["x-request-id"])

    be_odd("odd-first", "TRACE")
    before = set(scraped(service).series)
    for method in ("PROPFIND", "LOCK", "SEARCH"):
        be_odd(f"odd-{method.lower()}", method)
    assert set(scraped(service).series) == before
    assert not any("odd" in value for _, labels in before for _, value in labels)


@pytest.mark.usefixtures("answering")
def test_waiting_for_a_place_is_told(service: Service, sandbox: Sandbox, key: str) -> None:
    """By the line of who waited, apart from the time at the provider, and by the metrics."""
    before = scraped(service)
    sandbox.script("openai", [Fault(delay_seconds=0.4)])
    clients = [service.http(key, **{"x-request-id": name}) for name in ("goes-first", "waits")]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(clients[0].post, CHAT, json=body())
        eventually(lambda: calls(sandbox))
        second = pool.submit(clients[1].post, CHAT, json=body())
        assert first.result().status_code == second.result().status_code == 200
    (served,), (waited,) = (service.line_of(n)["attempts"] for n in ("goes-first", "waits"))
    assert served["waited_ms"] < 100 < 300 < served["duration_ms"]
    assert waited["duration_ms"] < 300
    assert waited["waited_ms"] > 100
    name = "llm_provider_wait_seconds_total"
    grown = scraped(service)(name, provider="openai") - before(name, provider="openai")
    assert grown * 1000 == pytest.approx(served["waited_ms"] + waited["waited_ms"], abs=1)


def test_an_alert_that_is_not_sent_is_counted(service: Service, key: str) -> None:
    """Nobody listens at the webhook: the alert of a bug does not reach it."""
    service.http(key).get("/crash")
    eventually(lambda: scraped(service)("alerts_not_sent_total"))


@pytest.mark.usefixtures("answering")
def test_what_waits_for_the_store_is_gauged(service: Service, sandbox: Sandbox, key: str) -> None:
    """A settlement that cannot be written shows, and that the store is gone, until it is back."""
    sandbox.script("openai", [Fault(delay_seconds=0.3)])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(service.http(key).post, CHAT, json=body())
        eventually(lambda: calls(sandbox))
        with closing(sqlite3.connect(service.store, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            assert call.result().status_code == 200
            gone = scraped(service)
            db.execute("ROLLBACK")
    assert (gone("llm_settlements_waiting"), gone("store_up")) == (1, 0)
    eventually(lambda: scraped(service)("llm_settlements_waiting") == 0)
    assert scraped(service)("store_up") == 1
    assert scraped(service)("llm_settlements_lost_total") == 0
