"""Prometheus' own tool judges what a service brings along for it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ..rendering import render, take_snapshot
from .conftest import required

NAME = "my-service"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`observability/` of a rendered service."""
    project = tmp_path_factory.mktemp("observed") / NAME
    render(take_snapshot(tmp_path_factory.mktemp("template")), project, {"project_name": NAME})
    return project / "observability"


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [required("promtool", "prometheus"), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_the_alerts_are_valid(folder: Path) -> None:
    """Expressions, durations and the templates of their texts."""
    checked = promtool(folder, "check", "rules", "--lint-fatal", "prometheus-alerts.yml")
    assert checked.returncode == 0, checked.stdout


def test_the_alerts_fire_when_they_should(folder: Path) -> None:
    """Each fires after its time when its case occurs, and none does while all is well."""
    tested = promtool(folder, "test", "rules", "prometheus-alerts.test.yml")
    assert tested.returncode == 0, tested.stdout


def test_the_panels_queries_are_valid(folder: Path, tmp_path: Path) -> None:
    """Each is PromQL once Grafana has put its variables in."""
    document = json.loads((folder / "grafana-dashboard.json").read_text(encoding="utf-8"))
    targets = [target for panel in document["panels"] for target in panel.get("targets", ())]
    queries = [t["expr"].replace("$__rate_interval", "5m").replace("$job", NAME) for t in targets]
    assert queries and not any("$" in query for query in queries)
    rules = [
        {"record": f"panel:query{number}", "expr": query} for number, query in enumerate(queries)
    ]
    (tmp_path / "queries.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "a", "rules": rules}]})
    )
    checked = promtool(tmp_path, "check", "rules", "queries.yml")
    assert checked.returncode == 0, checked.stdout
    assert re.search(rf"\b{len(queries)} rules found", checked.stdout)
