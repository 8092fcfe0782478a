"""Each file is what its reader takes, by the schema that it publishes; where none can be had
offline, by what it demands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.matrix.combinations import default_combination
from tests.packaging.conftest import Rendered
from tests.rendering import render

pytestmark = pytest.mark.xdist_group("packaging")

SCHEMAS = {
    "vendor.compose-spec": "compose.yaml",
    "vendor.github-workflows": ".github/workflows/ci.yml",
    "custom.github-workflows-require-timeout": ".github/workflows/ci.yml",
    "vendor.dependabot": ".github/dependabot.yml",
}
ODD_NAMES = ("1000", "null", "9-" + "x" * 58)
"""Names of services that YAML reads as something else, or that are at the limit."""


@pytest.fixture(scope="session")
def odd_services(
    packaging_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Rendered]:
    """Services whose names are allowed, and look like numbers and the like."""
    folder = tmp_path_factory.mktemp("odd")
    combination = default_combination()
    for name in ODD_NAMES:
        render(packaging_template, folder / name, {**combination.answers, "project_name": name})
    return {name: Rendered(folder / name, combination) for name in ODD_NAMES}


@pytest.fixture(scope="session")
def everyone(
    services: Mapping[str, Rendered], odd_services: Mapping[str, Rendered]
) -> tuple[Rendered, ...]:
    return (*services.values(), *odd_services.values())


def check(schema: str, files: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_it_fits_the_published_schema(
    schema: str, everyone: tuple[Rendered, ...], tmp_path: Path
) -> None:
    """Compose, GitHub and Dependabot take what is rendered; a file with a misspelt word they do
    not."""
    files = [service.project / SCHEMAS[schema] for service in everyone]
    checked = check(schema, files)
    assert checked.returncode == 0, checked.stdout
    wrong = tmp_path / "wrong.yaml"
    misspelt = re.sub(r"image:|timeout-minutes:|schedule:", "imagine:", files[0].read_text())
    wrong.write_text(misspelt)
    assert check(schema, [wrong]).returncode == 1


def test_kubernetes_takes_the_manifests(everyone: tuple[Rendered, ...]) -> None:
    """The oldest and the newest version that is known of here, strictly: no field is unknown."""
    versions = [kubernetes_validate.latest_version(), "1.29"]
    for service in everyone:
        manifests = service.manifests()
        assert {"Deployment", "Service"} <= manifests.keys()
        for resource in manifests.values():
            for version in versions:
                kubernetes_validate.validate(resource, version, strict=True)
    deployment = everyone[0].manifests()["Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGraceSeconds"] = 50
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        kubernetes_validate.validate(deployment, versions[0], strict=True)


def test_names_are_as_kubernetes_wants_them(everyone: tuple[Rendered, ...]) -> None:
    """RFC 1123 labels, and a Service's also begins with a letter."""
    for service in everyone:
        for kind, resource in service.manifests().items():
            first = "[a-z]" if kind == "Service" else "[a-z0-9]"
            assert re.fullmatch(rf"{first}[a-z0-9-]{{0,62}}(?<!-)", resource["metadata"]["name"])


def test_the_manifests_belong_together(service: Rendered) -> None:
    """The Service and the budget mean the pods that the Deployment makes, of the image that the
    kustomization names, and each claim and volume exists."""
    manifests = service.manifests()
    pods = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == pods
    assert manifests["Service"]["spec"]["selector"] == pods
    kustomization = service.yaml("deploy/kubernetes/kustomization.yaml")
    assert kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert kustomization["kind"] == "Kustomization"
    (image,) = kustomization["images"]
    assert image["name"] == service.container()["image"]
    assert set(image) == {"name", "newName", "newTag"}
    volumes = {volume["name"]: volume for volume in service.pod()["volumes"]}
    assert {mount["name"] for mount in service.container()["volumeMounts"]} == set(volumes)
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if "persistentVolumeClaim" in volume
    ]
    claimed = manifests.get("PersistentVolumeClaim")
    assert claims == ([claimed["metadata"]["name"]] if claimed else [])


def test_the_development_container_is_one(service: Rendered) -> None:
    """Plain JSON with the properties of the specification, of the types that it gives them."""
    content: dict[str, Any] = json.loads(service.text(".devcontainer/devcontainer.json"))
    types = {
        "name": str,
        "image": str,
        "containerEnv": dict,
        "postCreateCommand": dict,
        "forwardPorts": list,
        "customizations": dict,
    }
    assert {name: type(value) for name, value in content.items()} == types
    for command in content["postCreateCommand"].values():
        assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0


def test_everything_that_is_yaml_is_read(service: Rendered) -> None:
    """No file that calls itself YAML is anything else."""
    files = [*service.project.rglob("*.yaml"), *service.project.rglob("*.yml")]
    assert len(files) >= 7
    for path in files:
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
