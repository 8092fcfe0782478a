"""`scaffold new` as a person meets it: a shell in a terminal under tmux, keys, and the screen."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import yaml

from ..cli.conftest import ROOT, files_in, git
from .conftest import Open, Screen, SilentIndex, required, until

QUESTIONS = ("Its framework?", "Its storage?", "Its providers?", "The first of them?", "Make it?")
INVERTED = re.compile(r"\x1b\[(?:[\d;]*;)?7m")
COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|9[0-7])(?:;[\d;]*)?m")


def answers_of(service: Path) -> dict[str, object]:
    content = yaml.safe_load((service / ".copier-answers.yml").read_text())
    assert isinstance(content, dict)
    return content


def wait_for_status(screen: Screen, status: int) -> None:
    """Wait until the shell is back, and see with which status the command ended."""
    screen.wait_for_prompt()
    screen.enter("echo [$?]")
    screen.wait_for(f"[{status}]")


def test_a_service_is_made_with_arrows_and_checkboxes(terminal: Open, workplace: Path) -> None:
    """Arrow keys move, Space ticks, and a summary is shown before anything is written."""
    screen = terminal()
    screen.enter("scaffold new my-service --no-install")
    screen.wait_for("Its framework?", " » Alpha  the first", "   Beta   the second")
    screen.press("Down")
    screen.wait_for("   Alpha  the first", " » Beta   the second")
    screen.press("Enter")
    screen.wait_for("? Its framework? beta", "Its storage?", " » Disk    slow", "   Memory  fast")
    screen.press("Up")  # from the first to the last
    screen.wait_for("   Disk    slow", " » Memory  fast")
    screen.press("Enter")
    screen.wait_for(
        "? Its storage? memory", " » ● Red    warm", "   ● Green  calm", "   ○ Blue   cold"
    )
    screen.press("Space", "Down", "Down", "Space")
    screen.wait_for("   ○ Red    warm", "   ● Green  calm", " » ● Blue   cold")
    screen.press("Enter")
    screen.wait_for("? Its providers? green, blue", "The first of them?", " » green", "   blue")
    screen.press("Down", "Enter")
    screen.wait_for("? The first of them? blue", "Make it?")
    for line in (
        "project name      my-service",
        "framework         beta",
        "storage           memory",
        "providers         green, blue",
        "primary provider  blue",
    ):
        assert line in screen.lines()
    screen.wait_for(f"destination       {workplace / 'my-service'}")
    assert not list(workplace.iterdir())
    screen.press("Enter")
    screen.wait_for("my-service is ready.", "cd my-service")
    wait_for_status(screen, 0)
    assert "app/beta.py" in files_in(workplace / "my-service")
    answers = answers_of(workplace / "my-service")
    assert (answers["framework"], answers["storage"]) == ("beta", "memory")
    assert (answers["providers"], answers["primary_provider"]) == (["green", "blue"], "blue")
    assert git(workplace / "my-service", "status", "--porcelain") == ""


def test_ticking_nothing_is_refused_on_the_spot(terminal: Open) -> None:
    """An empty list of providers is not accepted; the reason is shown, and the list stays."""
    screen = terminal()
    screen.enter("scaffold new x --framework beta --storage disk")
    screen.wait_for(" » ● Red")
    screen.press("Space", "Down", "Space", "Enter")
    screen.wait_for("choose at least one", "   ○ Red", " » ○ Green")


@pytest.mark.parametrize("answered", range(len(QUESTIONS)))
def test_ctrl_c_at_any_question_leaves_nothing(
    terminal: Open, workplace: Path, temporary: Path, answered: int
) -> None:
    """Ctrl-C at a question or at the confirmation gives the shell back and leaves nothing."""
    screen = terminal()
    screen.enter("scaffold new deep/x")
    for question in QUESTIONS[:answered]:
        screen.wait_for(question)
        screen.press("Enter")
    screen.wait_for(QUESTIONS[answered])
    screen.press("C-c")
    screen.wait_for("cancelled: nothing is left behind")
    wait_for_status(screen, 130)
    assert not any("Traceback" in line for line in screen.lines())
    assert not list(workplace.iterdir())
    assert not list(temporary.iterdir())


def start_an_install_that_waits(
    terminal: Open, tmp_path: Path, template: Path, index: SilentIndex
) -> tuple[Screen, socket.socket]:
    """A terminal in which uv waits for its index, and uv's connection to it."""
    screen = terminal(
        SCAFFOLD_TEMPLATE=str(template),
        UV_DEFAULT_INDEX=index.url,
        UV_CACHE_DIR=str(tmp_path / "cache"),
        UV_NO_CONFIG="1",
    )
    screen.enter("scaffold new deep/x --defaults")
    connection = index.wait_for_a_caller()
    screen.wait_for("Installing the environment")
    return screen, connection


def of_ours_in(temporary: Path) -> list[Path]:
    """What is left there, apart from the locks that uv never removes."""
    return [path for path in temporary.iterdir() if not path.match("uv-*.lock")]


def wait_until_it_hangs_up(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def test_ctrl_c_while_it_installs_leaves_nothing(
    terminal: Open,
    workplace: Path,
    temporary: Path,
    tmp_path: Path,
    dependent_template: Path,
    silent_index: SilentIndex,
) -> None:
    """Ctrl-C while uv waits for a silent index ends uv too, and removes the service."""
    screen, connection = start_an_install_that_waits(
        terminal, tmp_path, dependent_template, silent_index
    )
    with connection:
        assert (workplace / "deep/x/pyproject.toml").exists()
        screen.press("C-c", "C-c")
        screen.wait_for("cancelled: nothing is left behind")
        wait_until_it_hangs_up(connection)
    wait_for_status(screen, 130)
    assert not list(workplace.iterdir())
    assert not of_ours_in(temporary)


def test_closing_the_terminal_leaves_nothing(
    terminal: Open,
    workplace: Path,
    temporary: Path,
    tmp_path: Path,
    dependent_template: Path,
    silent_index: SilentIndex,
) -> None:
    """A window closed in the middle of an install ends uv too, and removes the service."""
    screen, connection = start_an_install_that_waits(
        terminal, tmp_path, dependent_template, silent_index
    )
    with connection:
        screen.close()
        wait_until_it_hangs_up(connection)
    until(lambda: not list(workplace.iterdir()), lambda: f"left: {files_in(workplace)}")
    assert not of_ours_in(temporary)


def test_the_templates_questions_fit_80_columns(terminal: Open, workplace: Path) -> None:
    """Each question and each choice of this repository's `copier.yml` stands on one line."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text())
    screen = terminal(SCAFFOLD_TEMPLATE=str(ROOT), columns=80)
    screen.enter("scaffold new My_Service --dry-run")
    for question in (details for name, details in config.items() if not name.startswith("_")):
        screen.wait_for(question["help"])
        asked = next(line for line in screen.lines() if line.startswith(f"? {question['help']}"))
        choices = question.get("choices")
        if choices:
            assert asked.endswith("enter)")
        for label in choices if isinstance(choices, dict) else ():
            title, _, description = label.partition(": ")
            assert any(
                title in line and line.endswith(f"  {description}") for line in screen.lines()
            )
        screen.press("Enter")
    wait_for_status(screen, 0)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_questions_are_in_colour_unless_told_otherwise(
    terminal: Open, more: dict[str, str], coloured: bool
) -> None:
    """Questions and errors have colour, unless NO_COLOR is set; what is ticked is not inverted."""
    screen = terminal(**more)
    screen.enter("scaffold new x --framework alpha --storage disk")
    screen.wait_for(" » ● Red    warm")
    assert bool(COLOUR.search(screen.escapes())) is coloured
    assert not INVERTED.search(screen.escapes()), "reads as if the pointer were there"
    screen.press("C-c")
    screen.wait_for("error: ")
    assert bool(COLOUR.search(screen.escapes())) is coloured


def test_bash_completes_the_templates_values(terminal: Open, variables: dict[str, str]) -> None:
    """After `--install-completion` a new bash completes options, and values from `copier.yml`."""
    Path(variables["HOME"], ".bashrc").write_text("PS1='new one: '\n")
    screen = terminal(f"{required('bash')} --norc --noprofile")
    screen.enter("scaffold --install-completion")
    screen.wait_for("completion installed")
    screen.enter("clear; exec bash --noprofile")
    screen.wait_for_line("new one:")
    screen.write("scaffold new x --framework ")
    screen.press("Tab", "Tab")
    screen.wait_for_line("alpha  beta")
    screen.write("b")
    screen.press("Tab")
    screen.write("--stor")
    screen.press("Tab")
    screen.write("m")
    screen.press("Tab")
    screen.wait_for("scaffold new x --framework beta --storage memory")
    screen.press("C-u")
    screen.write("scaffold opt")
    screen.press("Tab")
    screen.wait_for("scaffold options")
