"""The questions of `copier.yml` as Copier would put them, without Copier's prompts.

Choices, defaults, conditions and validators are the template's; nothing of them is repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

Answer = str | list[str]
Answers = dict[str, Answer]
Ask = Callable[["OpenQuestion"], Answer]


@dataclass(frozen=True, slots=True)
class Choice:
    value: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question as it is written. Texts are Jinja over the answers that come before it."""

    name: str
    help: str
    multiple: bool
    choices: Mapping[str, str] | str
    default: Answer
    validator: str
    when: str


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question whose turn has come: the answers before it settle its choices and default."""

    name: str
    help: str
    multiple: bool
    choices: tuple[Choice, ...]
    default: Answer
    problem_with: Callable[[Answer], str]
    """What is wrong with an answer; empty when it will do."""

    def is_default(self, choice: Choice) -> bool:
        return choice.value in (self.default if isinstance(self.default, list) else [self.default])


class InvalidAnswer(Exception):
    """An answer that the template refuses."""

    def __init__(self, question: OpenQuestion, problem: str) -> None:
        super().__init__(problem)
        self.question = question


class Questionnaire:
    """The questions of one template, for one destination folder."""

    def __init__(self, template_root: Path, folder_name: str) -> None:
        config = yaml.safe_load((template_root / "copier.yml").read_text(encoding="utf-8"))
        self.questions = tuple(
            _question(name, details) for name, details in config.items() if not name.startswith("_")
        )
        self._message_after_copy = str(config.get("_message_after_copy", ""))
        self.folder_name = folder_name
        # Copier's own environment: what renders there renders here.
        self._jinja = SandboxedEnvironment(
            undefined=StrictUndefined,
            extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        )

    def answer(self, given: Mapping[str, Answer], ask: Ask) -> Answers:
        """Settle every question that applies: by `given`, or else by `ask`.

        Raises `InvalidAnswer` for the first answer that the template refuses.
        """
        answers: Answers = {}
        for question in self.questions:
            if not self._applies(question, answers):
                continue
            opened = self._open(question, answers)
            answer = given[question.name] if question.name in given else ask(opened)
            if problem := opened.problem_with(answer):
                raise InvalidAnswer(opened, problem)
            answers[question.name] = answer
        return answers

    def next_steps(self, answers: Answers, destination: Path) -> str:
        """The template's message after a copy, as it reads for a service that is in git already."""
        return self._render(
            self._message_after_copy, answers, _copier_conf={"dst_path": destination}, scaffold=True
        ).rstrip()

    def render(self, text: str, answers: Answers, **context: object) -> str:
        """One of the template's texts as it reads with these answers. Raises Jinja's errors."""
        return self._render(text, answers, **context).strip()

    def _open(self, question: Question, answers: Answers) -> OpenQuestion:
        choices = self._choices(question, answers)

        def problem_with(answer: Answer) -> str:
            refused = _refused_choice(answer, choices) if choices else ""
            return (
                refused
                or self._render(question.validator, {**answers, question.name: answer}).strip()
            )

        default = question.default
        if isinstance(default, str):
            default = self._render(default, answers)
        return OpenQuestion(
            question.name, question.help, question.multiple, choices, default, problem_with
        )

    def _applies(self, question: Question, answers: Answers) -> bool:
        return yaml.safe_load(self._render(question.when, answers)) is True

    def _choices(self, question: Question, answers: Answers) -> tuple[Choice, ...]:
        if isinstance(question.choices, str):
            values: Sequence[str] = yaml.safe_load(self._render(question.choices, answers)) or ()
            return tuple(Choice(value, value, "") for value in values)
        return tuple(_choice(label, value) for label, value in question.choices.items())

    def _render(self, text: str, answers: Answers, **context: object) -> str:
        return self._jinja.from_string(text).render(
            **answers, _folder_name=self.folder_name, **context
        )


def _question(name: str, details: Mapping[str, object]) -> Question:
    choices = details.get("choices") or {}
    default = details.get("default", "")
    assert isinstance(choices, (dict, str)), f"{name}: choices are a mapping of label to value"
    return Question(
        name=name,
        help=str(details.get("help", name)),
        multiple=details.get("multiselect") is True,
        choices=choices,
        default=[str(value) for value in default] if isinstance(default, list) else str(default),
        validator=str(details.get("validator", "")),
        when=str(details.get("when", True)),
    )


def _choice(label: str, value: str) -> Choice:
    """A label reads `Title: one line of description`."""
    title, _, description = label.partition(": ")
    return Choice(value, title, description)


def _refused_choice(answer: Answer, choices: Sequence[Choice]) -> str:
    picked = answer if isinstance(answer, list) else [answer]
    known = [choice.value for choice in choices]
    for index, value in enumerate(picked):
        if value not in known:
            return f'"{value}" is not one of {", ".join(known)}'
        if value in picked[:index]:
            return f'"{value}" is given twice'
    return ""
