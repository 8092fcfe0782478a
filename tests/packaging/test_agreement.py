"""The numbers, names and places in the files around the code are those of the code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from app import policy
from app.guardrails.environment.settings import SECRETS_FOLDER, Settings
from app.guardrails.environment.startup import InvalidEnvironment, load
from tests.packaging.conftest import SHARED_BY_HOSTS, Rendered
from tests.packaging.image import instructions

pytestmark = pytest.mark.xdist_group("packaging")

DEFAULTS = Settings.model_construct()
OPTIONAL = {"METRICS_TOKEN", "OPENAI_COMPATIBLE_API_KEY"}
"""Secrets that a start does without."""


def seconds_to_end() -> float:
    """How long a stop takes at most, by the code: the delay, the grace period, and what is cut off
    then, by the server and by us; settlements are written, alerts sent, the store is closed."""
    return (
        DEFAULTS.delay_before_shutdown_seconds
        + DEFAULTS.grace_period_seconds
        + 2 * policy.CUT_OFF_SECONDS
        + 2 * policy.STORE_TIMEOUT_SECONDS
        + policy.ALERT_TIMEOUT_SECONDS
    )


def mounted_in_compose(service: Rendered) -> dict[str, str]:
    """The file of each secret that the service gets, by its variable."""
    files = service.yaml("compose.yaml")["secrets"]
    return {name.upper(): files[name]["file"] for name in service.compose_service()["secrets"]}


def mounted_in_kubernetes(service: Rendered) -> dict[str, str]:
    (volume,) = [v for v in service.pod()["volumes"] if "secret" in v]
    return {item["path"].upper(): f".secrets/{item['key']}" for item in volume["secret"]["items"]}


def made_secrets(service: Rendered, folder: Path) -> dict[str, str]:
    """What `deploy/secrets.sh` writes, by the file's name."""
    (folder / "deploy").mkdir(parents=True)
    (folder / "deploy/secrets.sh").write_text(service.text("deploy/secrets.sh"))
    answers = "".join(
        f"a-key-that-was-typed-{number}\n" for number in range(len(service.providers))
    )
    subprocess.run(
        ["sh", "deploy/secrets.sh"],
        cwd=folder,
        input=answers.encode(),
        capture_output=True,
        check=True,
    )
    return {f".secrets/{path.name}": path.read_text() for path in (folder / ".secrets").iterdir()}


def refused(
    service: Rendered, variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The variables that a start in production refuses; empty when it begins."""
    with monkeypatch.context() as patch:
        for name in service.settings():
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(service.project)
        try:
            load(service.provider_settings(), service.store_settings())
        except InvalidEnvironment as error:
            return [problem.variable for problem in error.problems]
    return []


def test_the_platform_waits_long_enough(service: Rendered) -> None:
    """Compose and Kubernetes kill the service only after it can have ended by itself, which the
    README promises as well."""
    in_compose = service.compose_service()["stop_grace_period"]
    assert float(in_compose.removesuffix("s")) >= seconds_to_end()
    assert service.pod()["terminationGracePeriodSeconds"] >= seconds_to_end()
    margin = (
        seconds_to_end() - DEFAULTS.delay_before_shutdown_seconds - DEFAULTS.grace_period_seconds
    )
    assert margin == 15
    assert "fifteen seconds more" in " ".join(service.text("README.md").split())
    for name in ("compose.yaml", "deploy/kubernetes/deployment.yaml"):
        assert "SHUTDOWN_DELAY_SECONDS + GRACE_PERIOD_SECONDS + 15 " in service.text(name)


def test_readiness_is_noticed_in_time(service: Rendered) -> None:
    """Kubernetes has seen the probe fail before the port closes, and gives a start longer than the
    store may take to be reached."""
    probe = service.container()["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert noticed < DEFAULTS.delay_before_shutdown_seconds
    start = service.container()["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > policy.STORE_OPEN_TIMEOUT_SECONDS
    for name in ("startupProbe", "livenessProbe"):
        assert service.container()[name]["httpGet"]["path"] == "/livez"


def test_one_port(service: Rendered) -> None:
    """Wherever the port is written, it is the setting's default."""
    port = DEFAULTS.port
    assert service.compose_service()["ports"] == [f"127.0.0.1:{port}:{port}"]
    (declared,) = service.container()["ports"]
    assert declared["containerPort"] == port
    (exposed,) = service.manifests()["Service"]["spec"]["ports"]
    named = [exposed["targetPort"]]
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    named += [service.container()[probe]["httpGet"]["port"] for probe in probes]
    assert set(named) == {declared["name"]}


def test_one_user(service: Rendered) -> None:
    """Kubernetes runs it as the image's user, who may write to the database's volume."""
    dockerfile = {step.name: step.text for step in instructions(service.project / "Dockerfile")}
    context = service.pod()["securityContext"]
    assert dockerfile["USER"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    owner = {"fsGroup": context["runAsGroup"]} if service.storage == "sqlite" else {}
    assert {name: context[name] for name in context if name == "fsGroup"} == owner


def test_it_is_locked_up(service: Rendered) -> None:
    """No root, nothing to write to, no capability, no way to more; in Compose as in Kubernetes."""
    pod, container, compose = service.pod(), service.container(), service.compose_service()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert compose["read_only"] is True and compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]


def test_secrets_are_mounted_where_they_are_read(service: Rendered) -> None:
    """Both mount the same files, under the names of settings, and no secret is a variable."""
    in_compose, in_kubernetes = mounted_in_compose(service), mounted_in_kubernetes(service)
    assert in_compose == in_kubernetes
    assert in_compose.keys() <= service.secrets()
    (mount,) = [m for m in service.container()["volumeMounts"] if m["name"] == "secrets"]
    assert mount["mountPath"] == str(SECRETS_FOLDER) and mount["readOnly"]
    variables = {*service.compose_service().get("environment", {})}
    assert variables == {variable["name"] for variable in service.container().get("env", [])}
    assert variables <= service.settings().keys() - service.secrets()


def test_what_is_mounted_is_fit_for_production(
    service: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what `deploy/secrets.sh` makes and the variables that Compose asks for, a start in
    production refuses nothing, and without any one of them it does; those of the manifests are
    refused by name until they are filled in."""
    made = made_secrets(service, tmp_path)
    secrets = {name: made[file].strip() for name, file in mounted_in_compose(service).items()}
    asked = service.compose_service().get("environment", {})
    assert all(value == f"${{{name}:?}}" for name, value in asked.items())
    filled = {"URL": "http://models:8000/v1", "MODEL": "qwen3", "MTOK": "0"}
    variables = {name: filled[name.rpartition("_")[2]] for name in asked}
    given = {**secrets, **variables, "HOST": "0.0.0.0", "PORT": "8000"}
    assert refused(service, given, monkeypatch) == []
    for name in {*secrets, *variables} - OPTIONAL:
        missing = {known: value for known, value in given.items() if known != name}
        assert refused(service, missing, monkeypatch) == [name]
    unfilled = {v["name"]: v["value"] for v in service.container().get("env", [])}
    assert sorted(refused(service, {**secrets, **unfilled}, monkeypatch)) == sorted(unfilled)


def test_the_store_comes_first(service: Rendered) -> None:
    """The service waits until its store is healthy; a store has what it needs for that, keeps its
    data in a volume, and is not reached from outside."""
    compose = service.yaml("compose.yaml")
    stores = compose["services"].keys() - {"service"}
    assert stores == {service.storage} & SHARED_BY_HOSTS
    wanted = service.compose_service().get("depends_on", {})
    assert wanted == {name: {"condition": "service_healthy"} for name in stores}
    for name in stores:
        store = compose["services"][name]
        assert store["healthcheck"]["test"] and "ports" not in store
        (volume,) = store["volumes"]
        assert volume.partition(":")[0] in compose["volumes"]


def test_another_store_gets_another_volume(service: Rendered) -> None:
    """Where the store is changed later, the new one is not put on what the old one has left."""
    volumes = [*service.yaml("compose.yaml").get("volumes", {})]
    assert volumes == ([] if service.storage == "memory" else [f"{service.storage}-data"])


def test_the_database_is_on_a_volume(service: Rendered) -> None:
    """What SQLite writes by default outlives the container; nothing else has such a place."""
    if service.storage != "sqlite":
        assert "volumes" not in service.compose_service()
        assert "PersistentVolumeClaim" not in service.manifests()
        return
    dockerfile = {step.name: step.text for step in instructions(service.project / "Dockerfile")}
    default = service.store_settings().model_fields["sqlite_path"].default
    folder = str(Path(dockerfile["WORKDIR"], default).parent)
    (volume,) = service.compose_service()["volumes"]
    assert volume == f"sqlite-data:{folder}"
    (mount,) = [m for m in service.container()["volumeMounts"] if m["name"] == "data"]
    assert mount["mountPath"] == folder


def test_as_many_pods_as_the_store_bears(service: Rendered) -> None:
    """Two where it is shared by hosts, with none of them taken away before another is ready; else
    one, and never two on one database."""
    deployment = service.manifests()["Deployment"]["spec"]
    shared = service.storage in SHARED_BY_HOSTS
    assert deployment["replicas"] == (2 if shared else 1)
    assert ("PodDisruptionBudget" in service.manifests()) == shared
    strategy = deployment["strategy"]
    assert (strategy["type"] == "Recreate") == (service.storage == "sqlite")
    assert strategy.get("rollingUpdate", {}).get("maxUnavailable", 0) == 0


def test_one_version_of_each_tool(service: Rendered) -> None:
    """Image, CI and development container have the same Python, which the project takes, and the
    same uv."""
    files = ("Dockerfile", ".github/workflows/ci.yml", ".devcontainer/devcontainer.json")
    said = {name: service.text(name) for name in files}
    pythons = {
        match
        for text in said.values()
        for match in re.findall(r"(?:python:|python-version: \")(\d+\.\d+)", text)
    }
    uvs = {
        match
        for text in said.values()
        for match in re.findall(r"(?:/uv:| version: \"|uv==)(\d+\.\d+\.\d+)", text)
    }
    assert len(pythons) == 1 and len(uvs) == 1
    (least,) = re.findall(r'requires-python = ">=(\d+\.\d+)"', service.text("pyproject.toml"))
    assert [int(n) for n in pythons.pop().split(".")] >= [int(n) for n in least.split(".")]


def test_the_workflow_may_do_little(service: Rendered) -> None:
    """It reads, keeps no credentials, and runs no code that a tag could change."""
    workflow = service.yaml(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/kubernetes/deployment.yaml"])
def test_a_process_fits_into_its_memory(service: Rendered, name: str) -> None:
    """A process with its encoding takes 160 MB; the limit leaves as much again for the calls."""
    limits = re.findall(r"(?:mem_limit|limits:\s+memory): (\d+)(?:m|Mi)\b", service.text(name))
    assert [int(limit) >= 320 for limit in limits] == [True]
