"""The search for keys in code: each kind is found, and what only looks like one is not."""

from __future__ import annotations

import random
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.packaging.conftest import Rendered

pytestmark = pytest.mark.xdist_group("packaging")

_RANDOM = random.Random(8)


def letters(count: int) -> str:
    """As vendors make them, always with a digit; made here, so that this file holds no key."""
    return "".join(_RANDOM.choices(string.ascii_letters + string.digits, k=count - 1)) + "7"


def digits(count: int) -> str:
    return "".join(_RANDOM.choices("0123456789abcdef", k=count - 2)) + "f7"


VENDOR, NAMED, PRIVATE, URL, WEBHOOK = (
    "a vendor's key",
    "a key or password under its name",
    "a private key",
    "a URL with a password",
    "a webhook's address",
)
KEYS = {
    f'client = OpenAI(api_key="sk-{letters(48)}")': VENDOR,
    f"OPENAI_API_KEY=sk-proj-{letters(60)}-{letters(60)}_{letters(30)}": VENDOR,
    f"  value: sk-svcacct-{letters(80)}": VENDOR,
    f"ANTHROPIC_API_KEY=sk-ant-api03-{letters(60)}_{letters(32)}AA": VENDOR,
    f"GEMINI_API_KEY: AIza{letters(35)}": VENDOR,
    f"key=AQ.Ab8{letters(40)}": VENDOR,
    f"https://example.org/v1?key=AIza{letters(35)}&alt=sse": VENDOR,
    f"# sk-or-v1-{digits(64)}": VENDOR,
    f"key = 'gsk_{letters(52)}'": VENDOR,
    f"DEEPSEEK=sk-{digits(32)}": VENDOR,
    f"hf_{letters(34)}": VENDOR,
    f"xai-{letters(80)}": VENDOR,
    f"AKIA{'ABCDEFGH23456789'}": VENDOR,
    f"git clone https://ghp_{letters(36)}@github.com/a/b": VENDOR,
    "sk-proj-one-that-somebody-left-in-the-code": VENDOR,
    f"MISTRAL_API_KEY={letters(32)}": NAMED,
    f"SERVICE_API_KEYS=team-a:{letters(43)}": NAMED,
    f'    api_key = "{letters(32)}"': NAMED,
    f'{{"password": "{letters(24)}"}}': NAMED,
    f"POSTGRES_PASSWORD: {digits(32)}": NAMED,
    f"METRICS_TOKEN={digits(64)}  # of Prometheus": NAMED,
    "-----BEGIN PRIVATE KEY-----": PRIVATE,
    "-----BEGIN RSA PRIVATE KEY-----": PRIVATE,
    "key = '''-----BEGIN OPENSSH PRIVATE KEY-----": PRIVATE,
    "DATABASE_URL=postgresql://service:hunter2@db.internal:5432/service": URL,
    "redis://:s3cr3t@redis:6379/0": URL,
    "https://me:let-me-in@proxy.corp:8080": URL,
    f"https://hooks.slack.com/services/T01234567/B01234567/{letters(24)}": WEBHOOK,
}
NONE = (
    "OPENAI_API_KEY=",
    "OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "OPENAI_API_KEY=sk-your-own-openai-key-goes-here",
    'api_key = "the-key-that-the-sandbox-is-given"',
    'KEYS_OF_ONE = ("the-old-key-of-one", "the-new-key-of-one")',
    "SERVICE_API_KEYS=caller1:key-of-caller1,caller2:key-of-caller2",
    "token: ${{ secrets.GITHUB_TOKEN }}",
    'password = f"{secrets.token_urlsafe(32)}"',
    "url = f'postgresql://{user}:{password}@{host}:{port}/name'",
    "DATABASE_URL=postgresql://user:password@host:5432/name?sslmode=verify-full",
    "REDIS_URL=redis://[user:password@]host[:port][/db]",
    "https://me:canary@example.com/hook",
    "POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password",
    f'hash = "sha256:{digits(64)}"',
    f"uses: actions/checkout@{digits(40)} # v7.0.1",
    f'IMAGE = "python:3.13@sha256:{digits(64)}"',
    "max_output_tokens = settings.max_output_tokens",
    "this-task-is-risk-free-and-has-a-long-name-1234567890",
    f'key = "sk-{letters(48)}"  # not a secret: the vendor\'s documentation has it',
)


def scan(project: Path, *files: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.key_scan", *files]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


@pytest.fixture
def project(services: Mapping[str, Rendered], tmp_path: Path) -> Path:
    """A service of the test's own."""
    copy = tmp_path / "service"
    shutil.copytree(next(iter(services.values())).project, copy)
    return copy


def test_each_kind_of_key_is_found(project: Path) -> None:
    """By file, line and kind, one finding each, and never by its value."""
    (project / "app/planted.py").write_text("\n".join(KEYS) + "\n")
    found = scan(project)
    assert found.returncode == 1
    told = re.findall(r"^app/planted\.py:(\d+): (.+)$", found.stderr, re.MULTILINE)
    by_line = {list(KEYS)[int(line) - 1]: kind for line, kind in told}
    assert by_line == KEYS and len(told) == len(KEYS)
    values = {word for line in KEYS for word in re.findall(r"[A-Za-z0-9_]{20,}", line)}
    assert values and not [value for value in values if value in found.stderr + found.stdout]


def test_what_only_looks_like_a_key_is_none(project: Path) -> None:
    """Placeholders, tests' keys, hashes, names, and what says of itself that it is no secret."""
    (project / "app/planted.py").write_text("\n".join(NONE) + "\n")
    assert scan(project).stderr == ""


def test_a_fresh_service_holds_none(service: Rendered) -> None:
    """Neither in its code nor in its configuration, examples and tests."""
    searched = scan(service.project)
    assert searched.returncode == 0, searched.stderr
    assert int(searched.stdout.split()[0]) > 90


def test_the_files_that_are_named_are_searched(project: Path) -> None:
    """As pre-commit names those of a commit; others are not read."""
    (project / "app/planted.py").write_text(next(iter(KEYS)))
    assert scan(project, "app/main.py").returncode == 0
    assert scan(project, "app/main.py", "app/planted.py").returncode == 1
    assert scan(project, str(project / "app/planted.py")).returncode == 1


def test_what_git_ignores_is_not_searched(project: Path) -> None:
    """`.env` and `.secrets/` are where keys belong, with git and without; any other file counts,
    committed or not."""
    key = next(iter(KEYS))
    for name in (".env", ".secrets/openai_api_key", ".venv/lib/site.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(key)
    assert scan(project).returncode == 0
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    assert scan(project).returncode == 0
    (project / "notes.txt").write_text(key)
    assert "notes.txt:1:" in scan(project).stderr
    subprocess.run(["git", "add", "--force", ".env"], cwd=project, check=True)
    assert ".env:1:" in scan(project).stderr
