"""What the template tells an owner: of the versions crossed, and of the answers that change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml
from jinja2 import TemplateError

from . import git
from .errors import ScaffoldError
from .history import HISTORY_FILE, History, InvalidHistory, notices_since, read_history
from .questionnaire import Answers, Questionnaire
from .versions import Target

ANSWERS_NOTICES_FILE = "changed-answers.yml"


def notices_of_versions(
    target: Target, history: History, questionnaire: Questionnaire, answers: Answers
) -> list[tuple[str, str]]:
    """Those that are new to the service and concern it, each with its version's name."""
    recorded = git.content(target.template_root, target.recorded_commit, HISTORY_FILE)
    try:
        known = read_history(recorded)
    except InvalidHistory:
        known = {}  # no later version can mend it: better told twice than never
    told = notices_since(known, history)
    try:
        read = [(version, questionnaire.render(notice, answers)) for version, notice in told]
    except TemplateError as error:
        raise _unreadable(HISTORY_FILE, target, error) from error
    return [(version, notice) for version, notice in read if notice]


def notices_of_answers(
    target: Target, questionnaire: Questionnaire, before: Answers, answers: Answers
) -> dict[str, list[str]]:
    """What is told of each answer that changes, by the question's name.

    Notices are Jinja over the answers as they will be, and `before`, as they were. One that renders
    to nothing does not concern the service.
    """
    content = git.content(target.template_root, target.commit, ANSWERS_NOTICES_FILE)
    try:
        told = _changed(read_notices(content), before, answers)
        read = {
            question: [questionnaire.render(notice, answers, before=before) for notice in notices]
            for question, notices in told
        }
    except (InvalidNotices, TemplateError) as error:
        raise _unreadable(ANSWERS_NOTICES_FILE, target, error) from error
    concerning = {question: [*filter(None, notices)] for question, notices in read.items()}
    return {question: notices for question, notices in concerning.items() if notices}


class InvalidNotices(Exception):
    """The file is no mapping of questions to lists of texts."""


def read_notices(content: bytes | None) -> Mapping[str, Sequence[str]]:
    """By the question's name. None is the file of a template that has none."""
    try:
        parsed = yaml.safe_load(content or b"")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidNotices("it is no YAML") from error
    parsed = {} if parsed is None else parsed
    if not isinstance(parsed, dict) or not all(
        isinstance(notices, list) and all(isinstance(notice, str) for notice in notices)
        for notices in parsed.values()
    ):
        raise InvalidNotices("it does not map questions to lists of texts")
    return {str(question): notices for question, notices in parsed.items()}


def _changed(
    notices: Mapping[str, Sequence[str]], before: Answers, answers: Answers
) -> Iterator[tuple[str, Sequence[str]]]:
    for question, told in notices.items():
        if question in before and question in answers and before[question] != answers[question]:
            yield question, told


def _unreadable(name: str, target: Target, error: Exception) -> ScaffoldError:
    return ScaffoldError(
        f"a notice in the {name} of {target.version} cannot be read: {error};"
        " choose another version with --to"
    )
