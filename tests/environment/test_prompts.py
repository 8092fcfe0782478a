"""The owner's texts for the model: what is read of their files, and what a start says of them."""

import json
import shutil
from pathlib import Path

import pytest

from app.guardrails.environment.prompts import MAX_BYTES, SUMMARY, SYSTEM, Prompts, read_prompts

from .conftest import Start

SHIPPED = Path(__file__).parents[2] / "template" / "app" / "prompts"
COMMENT = "<!--\nWhat this is: <b>.\n-->\n\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files as they ship."""
    return shutil.copytree(SHIPPED, tmp_path / "prompts")


@pytest.fixture
def edited(rendered: Path, tmp_path: Path) -> Path:
    """A service of its own, whose prompts may be edited."""
    shutil.copytree(rendered / "app", tmp_path / "edited" / "app")
    return tmp_path / "edited"


def read_with(folder: Path, system: bytes | None) -> Prompts:
    (folder / "system.md").unlink()
    if system is not None:
        (folder / "system.md").write_bytes(system)
    return read_prompts(folder)


def remedies(prompts: Prompts) -> dict[str, str]:
    return {error.variable: error.remedy for error in prompts.unusable}


def test_what_ships_has_an_instruction_and_no_system_message(folder: Path) -> None:
    """Both files explain themselves, and nothing of that is for a model."""
    prompts = read_prompts(folder)
    assert (prompts.system, prompts.unusable) == ("", ())
    assert prompts.summary.startswith("Summarise ")
    for path in folder.iterdir():
        assert path.read_text(encoding="utf-8").startswith("<!--\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ""),
        (" \n\n", ""),
        (COMMENT, ""),
        ("Be brief.\n", "Be brief."),
        (COMMENT + "Be brief.\n\n  Rhyme.\n", "Be brief.\n\n  Rhyme."),
        (COMMENT + COMMENT + "Be brief.", "Be brief."),
        ("Be brief.\n<!-- Not the first. -->\n", "Be brief.\n<!-- Not the first. -->"),
        ("\ufeff" + COMMENT + "Be brief.\n", "Be brief."),
        (COMMENT.replace("\n", "\r\n") + "Sois bref.\r\nÀ bientôt.\r\n", "Sois bref.\nÀ bientôt."),
    ],
)
def test_what_stands_below_the_comment_is_the_message(
    folder: Path, content: str, message: str
) -> None:
    """Comments at the beginning go, and blank lines around; line ends and marks of editors do not
    matter; all else stays as it is written."""
    prompts = read_with(folder, content.encode())
    assert (prompts.system, prompts.unusable) == (message, ())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing"),
        ("Grüße.".encode("latin-1"), "is not UTF-8"),
        (b"a" * (MAX_BYTES + 1), "is larger than 256 KiB"),
        (b"<!-- What this is.\n\nBe brief.\n", "close it with -->"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, content: bytes | None, says: str
) -> None:
    """Its name comes with what to do, none of its text does, and the other one is read."""
    prompts = read_with(folder, content)
    assert prompts.system == "" and prompts.summary
    assert list(remedies(prompts)) == [SYSTEM]
    assert says in remedies(prompts)[SYSTEM]
    assert "brief" not in remedies(prompts)[SYSTEM]


def test_the_largest_file_is_read(folder: Path) -> None:
    """Exactly the limit is within it."""
    prompts = read_with(folder, b"a" * MAX_BYTES)
    assert (len(prompts.system), prompts.unusable) == (MAX_BYTES, ())


def test_a_summariser_needs_an_instruction(folder: Path) -> None:
    """What may be left out of one file may not be left out of the other; nor is it a folder."""
    (folder / "summary.md").write_text(COMMENT)
    (folder / "system.md").unlink()
    (folder / "system.md").mkdir()
    told = remedies(read_prompts(folder))
    assert list(told) == [SYSTEM, SUMMARY]
    assert "cannot be read" in told[SYSTEM] and "holds no text" in told[SUMMARY]


@pytest.mark.promise("E1")
def test_a_start_lists_prompts_with_all_else(start: Start, edited: Path) -> None:
    """A start and its check name both files beside a wrong variable, and nothing starts."""
    (edited / "app/prompts/system.md").unlink()
    (edited / "app/prompts/summary.md").write_text("")
    for arguments in ([], ["--check"]):
        ended = start(*arguments, PYTHONPATH=str(edited), PORT="eighty")
        assert ended.returncode == 2
        assert ended.stderr.startswith("The environment has 3 problems; ")
        for name in (SYSTEM, SUMMARY, "PORT"):
            assert f"\n  {name} " in ended.stderr


@pytest.mark.promise("E1")
def test_a_prompt_that_leaves_no_room_is_told(start: Start, edited: Path) -> None:
    """Beyond three quarters of MAX_INPUT_TOKENS, by the provider that counts most, a system message
    keeps the service from starting; an instruction only costs it its summaries."""
    # 1,500 tokens of OpenAI's each; the latter are of one byte.
    (edited / "app/prompts/system.md").write_text("a" + " word" * 1499)
    (edited / "app/prompts/summary.md").write_text("a1" * 750)
    told = {}
    for limit in ("3999", "4000"):
        ended = start("--check", "--json", PYTHONPATH=str(edited), MAX_INPUT_TOKENS=limit)
        document = json.loads(ended.stdout)
        told[limit] = (ended.returncode, document["problems"], document["warnings"])
    # Anthropic counts up to two for one: 3,000.
    assert told["4000"] == (0, [], [])
    status, (problem,), (warning,) = told["3999"]
    assert status == 2
    assert (problem["variable"], warning["variable"]) == (SYSTEM, SUMMARY)
    for remedy in (problem["remedy"], warning["remedy"]):
        assert "3,000 tokens" in remedy and "2,999" in remedy and "MAX_INPUT_TOKENS" in remedy
        assert "raise the limit" in remedy
