"""Services that have each choice once, one with all providers, and what their code declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from app.guardrails.environment.settings import Settings
from app.guardrails.environment.startup import variable_name
from app.providers.base import ProviderSettings
from app.storage.base import StoreSettings
from app.variables import Variables
from tests.matrix.combinations import (
    Combination,
    all_combinations,
    covering_combinations,
)
from tests.rendering import render, take_snapshot
from tests.stores import stores_with_servers

COMBINATIONS = (*covering_combinations(), all_combinations()[-1])
SHARED_BY_HOSTS = set(stores_with_servers())


@dataclass(frozen=True, slots=True)
class Rendered:
    """A service, never changed by a test, and the settings that its code declares."""

    project: Path
    combination: Combination

    def __str__(self) -> str:
        return str(self.combination)

    @property
    def storage(self) -> str:
        (value,) = self._chosen("storage")
        return value

    @property
    def providers(self) -> tuple[str, ...]:
        return self._chosen("providers")

    def settings(self) -> dict[str, tuple[type[Variables], str]]:
        """Each variable that the service reads: where it is declared, and as which field."""
        kinds: list[type[Variables]] = [Settings, self.store_settings()]
        kinds += self.provider_settings().values()
        return {
            variable_name(kind, field): (kind, field)
            for kind in kinds
            for field in kind.model_fields
        }

    def store_settings(self) -> type[StoreSettings]:
        kind: type[StoreSettings] = import_module(f"app.storage.{self.storage}").Store.settings_type
        return kind

    def provider_settings(self) -> dict[str, type[ProviderSettings]]:
        modules = {name: import_module(f"app.providers.{name}") for name in self.providers}
        return {name: module.Adapter.settings_type for name, module in modules.items()}

    def secrets(self) -> set[str]:
        """The variables whose values must stand nowhere."""
        return {
            variable
            for variable, (kind, field) in self.settings().items()
            if SecretStr.__name__ in str(kind.model_fields[field].annotation)
        }

    def text(self, name: str) -> str:
        return (self.project / name).read_text(encoding="utf-8")

    def yaml(self, name: str) -> Any:
        return yaml.safe_load(self.text(name))

    def manifests(self) -> dict[str, Any]:
        """The Kubernetes resources by their kind; there is one of each."""
        files = self.yaml("deploy/kubernetes/kustomization.yaml")["resources"]
        documents = [
            document
            for name in files
            for document in yaml.safe_load_all(self.text(f"deploy/kubernetes/{name}"))
        ]
        resources = {document["kind"]: document for document in documents}
        assert len(resources) == len(documents)
        return resources

    def pod(self) -> Any:
        return self.manifests()["Deployment"]["spec"]["template"]["spec"]

    def container(self) -> Any:
        (container,) = self.pod()["containers"]
        return container

    def compose_service(self) -> Any:
        return self.yaml("compose.yaml")["services"]["service"]

    def _chosen(self, axis: str) -> tuple[str, ...]:
        pairs = zip(self.combination.axes, self.combination.selections, strict=True)
        return next(values for given, values in pairs if given.name == axis)


@pytest.fixture(scope="session")
def packaging_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take_snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def services(
    packaging_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Rendered]:
    folder = tmp_path_factory.mktemp("services")
    made = {}
    for combination in COMBINATIONS:
        project = folder / str(combination)
        render(packaging_template, project, combination.answers)
        made[str(combination)] = Rendered(project, combination)
    return made


@pytest.fixture(params=COMBINATIONS, ids=str)
def service(request: pytest.FixtureRequest, services: Mapping[str, Rendered]) -> Rendered:
    """Each of them in turn."""
    return services[str(request.param)]
