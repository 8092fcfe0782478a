"""The answers of one command: flags, a file, the terminal, or the template's defaults."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from .errors import UsageError
from .questionnaire import Answer, Answers, InvalidAnswer, OpenQuestion, Questionnaire

# The flag that answers each question; of the providers, the first is the primary.
FLAGS = {
    "project_name": "--name",
    "framework": "--framework",
    "storage": "--storage",
    "providers": "--provider",
    "primary_provider": "--provider",
}


def from_flags(
    name: str | None, framework: str | None, storage: str | None, providers: Sequence[str]
) -> Answers:
    """The answers among the flags; what was not given is left out."""
    flags = {"project_name": name, "framework": framework, "storage": storage}
    answers: Answers = {key: value for key, value in flags.items() if value is not None}
    if providers:
        answers |= {"providers": list(providers), "primary_provider": providers[0]}
    return answers


def from_file(path: Path, questionnaire: Questionnaire) -> Answers:
    """The answers in a YAML file, such as another service's `.copier-answers.yml`.

    Raises `UsageError` for what is no mapping of questions to answers.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            f"{path} cannot be read as YAML: give a file of `question: answer`"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no mapping: give a file of `question: answer`")
    known = [question.name for question in questionnaire.questions]
    answers: Answers = {}
    for key, value in content.items():
        if str(key).startswith("_"):
            continue  # Copier's own record of where the other service came from.
        if key not in known:
            raise UsageError(
                f'{path} answers "{key}", which is not asked: known are {", ".join(known)}'
            )
        answers[key] = [str(item) for item in value] if isinstance(value, list) else str(value)
    if providers := answers.get("providers"):
        answers.setdefault("primary_provider", providers[0])
    return answers


def from_assignments(assignments: Sequence[str], questionnaire: Questionnaire) -> Answers:
    """The answers in `QUESTION=ANSWER` texts; several are separated by commas.

    Of providers the first becomes the primary, as with the flags. Raises `UsageError`.
    """
    questions = {question.name: question for question in questionnaire.questions}
    answers: Answers = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if key not in questions:
            raise UsageError(f'--set: "{key}" is not asked: known are {", ".join(questions)}')
        if not equals:
            raise UsageError(f"--set {key}: give its answer too, as in --set {key}=...")
        if key in answers:
            raise UsageError(f"--set {key} is given twice: give it once")
        parts = [part.strip() for part in value.split(",") if part.strip()]
        answers[key] = parts if questions[key].multiple else value
    if providers := answers.get("providers"):
        answers.setdefault("primary_provider", providers[0])
    return answers


def settle_again(questionnaire: Questionnaire, recorded: Answers, changed: Answers) -> Answers:
    """What a service answered, with the changes, as one version of the template takes it.

    A question that is new to the service takes its default. Raises `UsageError`.
    """
    try:
        answers = questionnaire.answer({**recorded, **changed}, lambda question: question.default)
    except InvalidAnswer as error:
        name = error.question.name
        if name in changed:
            raise UsageError(f"--set {name}: {error}") from error
        raise UsageError(
            f"the service's own {name} will not do: {error}; choose another with --set {name}=..."
        ) from error
    for name in changed:
        # One provider needs no primary; the one given first is that one anyway.
        if name not in answers and changed.get("providers") != [changed[name]]:
            raise UsageError(f"--set {name}: is not asked beside the other answers; leave it out")
    return answers


def settle(
    questionnaire: Questionnaire, given: Answers, *, use_defaults: bool
) -> tuple[Answers, bool]:
    """Every answer, and whether a person was asked for any.

    Raises `UsageError` when an answer is refused, or when one is open and there is no terminal.
    """
    asked: list[str] = []
    unanswered: list[str] = []

    def ask(question: OpenQuestion) -> Answer:
        if use_defaults or _is_named_by_folder(question, questionnaire.folder_name):
            return question.default
        if not _is_interactive():
            unanswered.append(FLAGS.get(question.name, question.name))
            return question.default
        # Imported here: questionary's tenth of a second, where a person is asked.
        from . import prompts

        asked.append(question.name)
        return prompts.ask(question)

    try:
        answers = questionnaire.answer(given, ask)
    except InvalidAnswer as error:
        flag = FLAGS.get(error.question.name, error.question.name)
        raise UsageError(f"{flag}: {error}") from error
    if unanswered:
        flags = ", ".join(dict.fromkeys(unanswered))
        raise UsageError(f"there is no terminal to ask on: give {flags}, or --defaults")
    return answers, bool(asked)


def _is_named_by_folder(question: OpenQuestion, folder_name: str) -> bool:
    """Whether DEST has answered already: its last part is a name that will do."""
    return (
        question.name == "project_name"
        and question.default == folder_name
        and not question.problem_with(folder_name)
    )


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
