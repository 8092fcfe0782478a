"""Secrets reach a service in files, as Docker, Kubernetes and secret managers bring them."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.server import Sandbox

from .asking import QUESTION, ask, calls, text_of
from .serving import Project

CALLER = "key-of-a-caller-in-a-file"
TOKEN = "a-token-in-a-file"
SECRETS_FOLDER = 'SECRETS_FOLDER = Path("/run/secrets")'


@pytest.fixture
def secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """Every secret that the default service can have."""
    keys = {name: value for name, value in variables.items() if name.endswith("_API_KEY")}
    return {**keys, "SERVICE_API_KEYS": f"one:{CALLER}", "METRICS_TOKEN": TOKEN}


def write(folder: Path, secrets: Mapping[str, str]) -> None:
    """As `docker secret create` and `echo` do, with a line break at the end."""
    folder.mkdir()
    for name, value in secrets.items():
        (folder / name.lower()).write_text(f"{value}\n")


@pytest.mark.promise("E5")
def test_each_secret_may_be_a_file_that_is_named(
    project: Project, sandbox: Sandbox, secrets: Mapping[str, str], tmp_path: Path
) -> None:
    """With nothing but paths in its environment a service knows its callers and is known to its
    provider, and none of the secrets is in its log."""
    write(tmp_path / "secrets", secrets)
    others = {name: value for name, value in project.variables.items() if name not in secrets}
    named = {f"{name}_FILE": str(tmp_path / "secrets" / name.lower()) for name in secrets}
    with replace(project, variables=others).serve(**named) as service:
        assert QUESTION in text_of(ask(service.sdk(CALLER)))
        assert service.http("another-key").get("/v1/models").status_code == 401
        assert not [secret for secret in secrets.values() if secret in service.output()]
    assert calls(sandbox) == 1


@pytest.mark.promise("E5")
def test_production_reads_mounted_secrets(
    project: Project, secrets: Mapping[str, str], tmp_path: Path
) -> None:
    """What is mounted under /run/secrets by the variables' names needs no variable at all."""
    root = tmp_path / "service"
    shutil.copytree(project.root, root)
    settings = root / "app" / "guardrails" / "environment" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    assert SECRETS_FOLDER in text
    elsewhere = f"SECRETS_FOLDER = Path({str(tmp_path / 'secrets')!r})"
    settings.write_text(text.replace(SECRETS_FOLDER, elsewhere), encoding="utf-8")
    write(tmp_path / "secrets", secrets)
    production = {"ENVIRONMENT": "production", "SHUTDOWN_DELAY_SECONDS": "0"}
    with Project(root, production, project.store).serve() as service:
        assert service.http(CALLER).get("/v1/models").status_code == 200
        assert service.http(TOKEN).get("/metrics").status_code == 200
        assert service.http("another-key").get("/v1/models").status_code == 401
