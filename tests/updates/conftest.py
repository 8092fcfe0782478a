"""The template's history and its renderings, once for a process, and git without the user's own
settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scaffold_cli.git import LOCAL_VARIABLES

from .services import Renderings
from .versions import build_template


@pytest.fixture(scope="package")
def plain_git() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in LOCAL_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        # Each service has an encoding of megabytes, which takes longer to press than to write.
        patch.setenv("GIT_CONFIG_COUNT", "1")
        patch.setenv("GIT_CONFIG_KEY_0", "core.compression")
        patch.setenv("GIT_CONFIG_VALUE_0", "0")
        yield


@pytest.fixture(scope="package")
def renderings(plain_git: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renderings]:
    """`scaffold update` takes what it compares from these."""
    template = build_template(tmp_path_factory.mktemp("history") / "template")
    renderings = Renderings(template, tmp_path_factory.mktemp("renderings"))
    with renderings.reused():
        yield renderings
