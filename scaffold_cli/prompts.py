"""The questions on a terminal: arrow keys, checkboxes, one line of description for each choice."""

from __future__ import annotations

from collections.abc import Callable

import questionary

from .questionnaire import Answer, Choice, OpenQuestion


def ask(question: OpenQuestion) -> Answer:
    """Put one question and wait. Raises `KeyboardInterrupt` on Ctrl-C and `EOFError` on Ctrl-D."""
    answer: Answer = _prompt(question).unsafe_ask()
    # In place of the prompt's own echo, which repeats the description. The hint has served.
    asked = question.help.partition(" (")[0]
    print(f"? {asked} {', '.join(answer) if isinstance(answer, list) else answer}")
    return answer


def confirm(message: str) -> bool:
    """A yes-or-no question whose default is yes. Raises as `ask` does."""
    agreed: bool = questionary.confirm(message, default=True, style=_style()).unsafe_ask()
    return agreed


def _prompt(question: OpenQuestion) -> questionary.Question:
    if not question.choices:
        return questionary.text(
            question.help,
            default=str(question.default),
            validate=_validator(question),
            style=_style(),
            erase_when_done=True,
        )
    width = max(len(choice.title) for choice in question.choices)
    choices = [_choice(choice, width, question) for choice in question.choices]
    if question.multiple:
        return questionary.checkbox(
            question.help,
            choices=choices,
            validate=_validator(question),
            instruction="(arrows, space to tick, enter)",
            style=_style(),
            erase_when_done=True,
        )
    return questionary.select(
        question.help,
        choices=choices,
        default=str(question.default),
        instruction="(arrows, enter)",
        style=_style(),
        erase_when_done=True,
    )


def _choice(choice: Choice, width: int, question: OpenQuestion) -> questionary.Choice:
    return questionary.Choice(
        [("class:title", f"{choice.title:<{width}}"), ("", f"  {choice.description}")],
        value=choice.value,
        checked=question.multiple and question.is_default(choice),
    )


def _style() -> questionary.Style:
    """Readable on dark and on light, and without colour: the pointer alone says where one is."""
    # `selected` would be in reverse video, and so would the default, wherever the pointer is.
    return questionary.Style(
        [
            ("title", "bold"),
            ("pointer", "fg:ansigreen bold"),
            ("selected", "noreverse fg:ansigreen"),
            ("answer", "noinherit"),
        ]
    )


def _validator(question: OpenQuestion) -> Callable[[Answer], bool | str]:
    def validate(answer: Answer) -> bool | str:
        return question.problem_with(answer) or True

    return validate
