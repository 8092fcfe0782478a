"""Finds keys and passwords in the project's files: `python -m tests.key_scan [FILE ...]`.

Without files it reads all that git would take in. Only shapes are judged, no history. What merely
looks like a key says so on its line: `not a secret`. A finding is told by place and kind, never by
value.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ALLOWED: Final = "not a secret"
MAX_BYTES: Final = 1_000_000
"""Larger files are data; nobody writes a key into them by hand."""
NOT_OURS: Final = {
    *(".git", ".venv", ".env", ".secrets", "data", "__pycache__"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".import_linter_cache"),
}
"""What git ignores, for where there is no git to ask."""

# A vendor's key is known by how it begins.
_KEY: Final = re.compile(
    r"""
    (?<![A-Za-z0-9_-])(?:
        sk-[A-Za-z0-9_-]{20,}
      | AIza[A-Za-z0-9_-]{35} | AQ\.[A-Za-z0-9_-]{30,} | ya29\.[A-Za-z0-9_.-]{30,}
      | (?:gsk_|hf_|xai-|pplx-|r8_|nvapi-|fw_|csk-|sk_live_|rk_live_)[A-Za-z0-9_-]{20,}
      | (?:gh[opsur]_|github_pat_|glpat-|npm_|pypi-|dckr_pat_)[A-Za-z0-9_-]{20,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}
      | xox[a-z]-[A-Za-z0-9-]{20,}
    )(?![A-Za-z0-9])
    """,
    re.VERBOSE,
)
_WEBHOOK: Final = re.compile(r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{20,}")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_URL: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://[^\s:/?#@\"'`\[\]]*:(?P<password>[^\s/?#@\"'`]+)@(?P<host>[^\s/:?#\"'`]+)",
    re.IGNORECASE,
)
# Of anything else the name tells: quoted, or all there is on a line of configuration.
_ASSIGNED: Final = re.compile(
    r"""
    (?:key|secret|token|passw(?:or)?d|passphrase|credential)s?["']?\s*[:=]\s*
    (?: ["'](?P<quoted>[^"'\s]{16,})["'] | (?P<bare>[A-Za-z0-9+/=_.~:,-]{16,})\s*(?:\#.*)?$ )
    """,
    re.IGNORECASE | re.VERBOSE,
)

_WORD: Final = re.compile(r"[A-Za-z]+[0-9]{0,4}|[0-9]{0,8}")
_BETWEEN_WORDS: Final = re.compile(r"[^A-Za-z0-9]+")
_EXAMPLE: Final = re.compile(
    r"x{4,}|\*{4,}|\.{4,}|(?<![a-z])(?:your|here|example|placeholder|changeme)(?![a-z])",
    re.IGNORECASE,
)
_STAND_IN: Final = re.compile(
    r"[<{$%*].*|(?:my|your)?[-_]?(?:password|passwd|secret|token|key)|x+|\.+", re.IGNORECASE
)
# RFC 2606: nobody has these hosts.
_NOBODYS_HOST: Final = re.compile(
    r"(?:.*\.)?example(?:\.(?:com|net|org))?|.*\.(?:test|invalid)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The value stays out of it: what prints a finding must not print a key."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}"


def find_keys(files: Iterable[Path]) -> Iterator[Finding]:
    """What looks like a secret in these files; those that are no text or large are passed over."""
    for path in files:
        text = _read(path)
        if text is None:
            continue
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        for number, line in enumerate(text.splitlines(), 1):
            if ALLOWED not in line:
                yield from (Finding(name, number, kind) for kind in kinds_in(line))


def kinds_in(line: str) -> Iterator[str]:
    """The kinds of secrets that a line looks to hold, one of each."""
    vendors = any(not _EXAMPLE.search(match.group()) for match in _KEY.finditer(line))
    if vendors:
        yield "a vendor's key"
    if _WEBHOOK.search(line):
        yield "a webhook's address"
    if _PRIVATE_KEY.search(line):
        yield "a private key"
    if "://" in line and any(_is_password(match) for match in _URL.finditer(line)):
        yield "a URL with a password"
    values = (match["quoted"] or match["bare"] for match in _ASSIGNED.finditer(line))
    if not vendors and any(_is_random(value) for value in values):
        yield "a key or password under its name"


def project_files() -> list[Path]:
    """What git has or would take in; without git, all but what it ignores in a new project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    if names:
        return sorted(path for name in names if (path := ROOT / name).is_file())
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not NOT_OURS & set(path.relative_to(ROOT).parts)
    )


def _read(path: Path) -> str | None:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    content = path.read_bytes()
    return None if b"\0" in content else content.decode(errors="replace")


def _is_random(value: str) -> bool:
    """Whether some of it mixes letters and digits: words and numbers do not, as in
    `key-of-caller1`, and so a test's keys are told from real ones."""
    return any(not _WORD.fullmatch(piece) for piece in _BETWEEN_WORDS.split(value))


def _is_password(match: re.Match[str]) -> bool:
    password, host = match["password"], match["host"]
    return not (_STAND_IN.fullmatch(password) or _NOBODYS_HOST.fullmatch(host))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, or 1 when something was found."""
    files = [Path(name).resolve() for name in arguments] or project_files()
    findings = list(find_keys(files))
    for finding in findings:
        print(finding, file=sys.stderr)
    if findings:
        print(
            f"\n{len(findings)} of what looks like a secret: take it out, and replace it where it"
            f" is valid, since git keeps it. What is none says `{ALLOWED}` on its line.",
            file=sys.stderr,
        )
        return 1
    print(f"{len(files)} files searched, 0 keys.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
