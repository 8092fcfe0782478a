"""`scaffold new` in a real terminal: keys, checkboxes, a summary, and Ctrl-C at any time."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
import yaml

from .conftest import Terminal, files_in

DOWN, ENTER, SPACE = "\x1b[B", "\r", " "


def answers_of(service: Path) -> dict[str, object]:
    content = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert isinstance(content, dict)
    return content


def ended(child: pexpect.spawn[str]) -> int | None:
    child.expect(pexpect.EOF)
    child.wait()
    status: int | None = child.exitstatus
    return status


def test_enter_alone_takes_the_defaults(terminal: Terminal, workplace: Path) -> None:
    """Every question has a good default, so that a person may press Enter to the end."""
    child = terminal("new", "my-service", "--no-install")
    for question in ("framework", "storage", "providers", "The first of them", "Make it"):
        child.expect(question)
        child.send(ENTER)
    child.expect("my-service is ready")
    assert ended(child) == 0
    answers = answers_of(workplace / "my-service")
    assert (answers["framework"], answers["storage"]) == ("alpha", "disk")
    assert (answers["providers"], answers["primary_provider"]) == (["red", "green"], "red")


def test_arrows_and_checkboxes_choose(terminal: Terminal, workplace: Path) -> None:
    """Arrow keys move, Space ticks, and each choice is shown with its line of description."""
    child = terminal("new", "x", "--no-install")
    child.expect("the first")
    child.expect("the second")
    child.send(DOWN + ENTER)
    child.expect("storage")
    child.send(DOWN + ENTER)
    child.expect("providers")
    child.send(SPACE + DOWN + DOWN + SPACE + ENTER)
    child.expect("The first of them")
    child.send(DOWN + ENTER)
    child.expect("green, blue")
    child.expect("Make it")
    child.send("y")
    assert ended(child) == 0
    answers = answers_of(workplace / "x")
    assert (answers["framework"], answers["storage"]) == ("beta", "memory")
    assert (answers["providers"], answers["primary_provider"]) == (["green", "blue"], "blue")


def test_only_what_is_open_is_asked(terminal: Terminal, workplace: Path) -> None:
    """Flags answer their questions; one provider needs no primary."""
    child = terminal("new", "x", "--no-install", "--framework", "beta", "--provider", "blue")
    child.expect("storage")
    child.send(ENTER)
    child.expect("Make it")
    child.send(ENTER)
    assert ended(child) == 0
    assert answers_of(workplace / "x")["framework"] == "beta"


def test_a_folder_called_as_a_choice_answers_only_the_name(terminal: Terminal) -> None:
    """A folder that bears the name of a framework does not choose that framework."""
    child = terminal("new", "alpha", "--no-install")
    child.expect("framework")


def test_a_name_is_asked_where_the_folders_will_not_do(terminal: Terminal, workplace: Path) -> None:
    """The name is offered in a form that will do, and an impossible one is refused on the spot."""
    child = terminal("new", "My Service", "--no-install", "--framework", "beta")
    child.expect("Its name")
    child.expect("my-service")
    child.send("!" + ENTER)
    child.expect("use a-z")
    child.send("\x7f" + ENTER)
    for question in ("storage", "providers", "The first of them", "Make it"):
        child.expect(question)
        child.send(ENTER)
    assert ended(child) == 0
    assert answers_of(workplace / "My Service")["project_name"] == "my-service"


def test_no_provider_is_refused_on_the_spot(terminal: Terminal) -> None:
    """An empty list of providers is not accepted; the reason is shown below the list."""
    flags = ["--no-install", "--framework", "beta", "--storage", "disk"]
    child = terminal("new", "x", *flags, PROMPT_TOOLKIT_NO_CPR="")
    # Where the cursor is, a terminal tells; the reason is shown only on one that does.
    child.expect_exact("\x1b[6n")
    child.send("\x1b[1;1R")
    child.expect("providers")
    child.send(SPACE + DOWN + SPACE + ENTER)
    child.expect("choose at least one")


def test_saying_no_writes_nothing(terminal: Terminal, workplace: Path) -> None:
    """The summary comes before anything is written, and may be declined."""
    child = terminal("new", "x", "--provider", "blue", "--storage", "disk")
    child.expect("framework")
    child.send(ENTER)
    child.expect(str(workplace / "x"))
    child.expect("Make it")
    assert not list(workplace.iterdir())
    child.send("n")
    child.expect("nothing was written")
    assert ended(child) == 130
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("answered", range(5))
def test_ctrl_c_at_any_question_leaves_nothing(
    terminal: Terminal, workplace: Path, temporary: Path, answered: int
) -> None:
    """Ctrl-C at any question ends with status 130, without a traceback, and leaves nothing."""
    child = terminal("new", "deep/x")
    questions = ("framework", "storage", "providers", "The first of them", "Make it")
    for question in questions[:answered]:
        child.expect(question)
        child.send(ENTER)
    child.expect(questions[answered])
    child.sendintr()
    child.expect("cancelled: nothing is left behind")
    assert ended(child) == 130
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def wait_for(file: Path, child: pexpect.spawn[str]) -> None:
    """Wait until a stand-in says that it runs."""
    for _ in range(600):
        if file.exists():
            return
        assert child.isalive(), child.before
        child.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.05)
    raise AssertionError(f"{file} did not appear")


def interrupt(child: pexpect.spawn[str], by: str) -> None:
    if by == "Ctrl-C":
        child.sendintr()
    else:
        child.kill(signal.Signals[by])


@pytest.mark.parametrize(("by", "status"), [("Ctrl-C", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("program_name", ["git", "uv"])
def test_an_interruption_while_it_works_leaves_nothing(
    terminal: Terminal,
    workplace: Path,
    temporary: Path,
    variables: dict[str, str],
    program: Callable[[str, str], Path],
    program_name: str,
    by: str,
    status: int,
) -> None:
    """Ctrl-C, a closed terminal or a kill, while it renders or installs, removes what was begun."""
    started = workplace.parent / "started"
    # git clones the template for Copier, which is the middle of rendering.
    only = f'[ "$1" = clone ] || exec {shutil.which("git")} "$@"' if program_name == "git" else ""
    stand_in = program(program_name, f"{only}\ntouch '{started}'; exec sleep 60")
    path = f"{stand_in.parent}:{variables['PATH']}"
    more = {"UV": str(stand_in)} if program_name == "uv" else {"PATH": path}
    child = terminal("new", "deep/x", "--defaults", **more)
    wait_for(started, child)
    interrupt(child, by)
    assert ended(child) == status
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def test_an_interruption_spares_the_folder_that_was_there(
    terminal: Terminal, workplace: Path, program: Callable[[str, str], Path]
) -> None:
    """An empty folder that the person made stays, empty."""
    (workplace / "mine").mkdir()
    started = workplace.parent / "started"
    uv = program("uv", f"touch '{started}'; exec sleep 60")
    child = terminal("new", "mine", "--defaults", UV=str(uv))
    wait_for(started, child)
    assert (workplace / "mine/pyproject.toml").exists()
    child.sendintr()
    assert ended(child) == 130
    assert [path.name for path in workplace.iterdir()] == ["mine"]
    assert not list((workplace / "mine").iterdir())


@pytest.mark.parametrize("again", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_end_the_cleaning(
    terminal: Terminal, workplace: Path, program: Callable[[str, str], Path], again: str
) -> None:
    """A shell that is hung up passes it on once more; a person presses Ctrl-C again and again."""
    started = workplace.parent / "started"
    # Many files, so that there is time to come between.
    fill = "mkdir .venv; cd .venv; seq 20000 | xargs touch"
    uv = program("uv", f"{fill}; touch '{started}'; exec sleep 60")
    child = terminal("new", "deep/x", "--defaults", UV=str(uv))
    wait_for(started, child)
    child.kill(signal.SIGHUP)
    time.sleep(0.05)  # of signals that arrive together either may be the first
    while child.isalive():
        child.kill(signal.Signals[again])
        time.sleep(0.002)
    assert ended(child) == 129
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("was_there", [False, True])
def test_what_came_meanwhile_is_spared(
    terminal: Terminal,
    workplace: Path,
    variables: dict[str, str],
    program: Callable[[str, str], Path],
    was_there: bool,
) -> None:
    """What somebody put at the destination while it rendered is neither changed nor mixed with."""
    if was_there:
        (workplace / "x").mkdir()
    # Somebody who comes in the middle of rendering, when git clones the template for Copier.
    come = f"mkdir -p '{workplace}/x'; echo precious > '{workplace}/x/pyproject.toml'"
    stand_in = program("git", f'[ "$1" = clone ] && {{ {come}; }}\nexec {shutil.which("git")} "$@"')
    path = f"{stand_in.parent}:{variables['PATH']}"
    child = terminal("new", "x", "--no-install", "--defaults", PATH=path)
    child.expect("not empty; choose another folder")
    assert ended(child) == 2
    assert files_in(workplace) == {"x/pyproject.toml"}
    assert (workplace / "x/pyproject.toml").read_text() == "precious\n"


def test_installing_shows_that_time_passes(
    terminal: Terminal, workplace: Path, program: Callable[[str, str], Path]
) -> None:
    """While uv works, the elapsed time is on the screen."""
    uv = program("uv", "exec sleep 1.2")
    child = terminal("new", "x", "--defaults", UV=str(uv))
    child.expect("Installing the environment")
    child.expect("0:00:01")
    child.expect("Installed the environment")
    assert ended(child) == 0
    assert "x/pyproject.toml" in files_in(workplace)


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_terminals_that_want_it(
    terminal: Terminal, more: dict[str, str], coloured: bool
) -> None:
    """An error is red on a terminal, and plain under NO_COLOR."""
    child = terminal("new", "x", "--defaults", "--framework", "gamma", **more)
    child.expect("error: ")
    assert ("\x1b[" in child.before) is coloured
    assert ended(child) == 2
