"""Write tasks and read answers in the JSON formats of other labelling tools.

Argilla (2.x): the list of records of ``Dataset.records.to_json`` and ``from_json``, with the text
field ``text`` and the label question ``label``. Label Studio: the list of tasks of "Basic Label
Studio JSON", with ``$text`` and a ``Choices`` tag named ``label``. In both, the additional choice
``none`` means that no label fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from trainer.errors import BadInput
from worker.contract.exchange import Answer, Task
from worker.contract.taxonomy import NO_LABEL, label_name

Form = Literal["argilla", "label-studio"]

_QUESTION, _TEXT = "label", "text"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class AnsweredTask:
    """A reviewer's label for a task; None: no label fits. ``by`` is a pseudonym."""

    task: str
    label: str | None
    by: str
    at: str | None


@dataclass(frozen=True, slots=True)
class Read:
    """The answers, and the numbers of tasks without an answer (``open``) or agreement."""

    answers: tuple[Answer, ...]
    open: int
    disputed: int


def write_foreign(tasks: Sequence[Task], form: Form) -> str:
    """Return the tasks as the JSON that the tool imports."""
    make = _argilla_record if form == "argilla" else _studio_task
    return json.dumps([make(task) for task in tasks], indent=1, ensure_ascii=False) + "\n"


def labelling_config(labels: Sequence[str]) -> str:
    """Return Label Studio's configuration of a project for these tasks."""
    choices = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in (*labels, NO_LABEL))
    return (
        f'<View>\n  <Text name="{_TEXT}" value="${_TEXT}"/>\n'
        f'  <Choices name="{_QUESTION}" toName="{_TEXT}" choice="single" required="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )


def _argilla_record(task: Task) -> dict[str, Any]:
    suggestion = {"value": task.suggested, "score": task.confidence, "agent": None}
    return {
        "id": task.id,
        "fields": {_TEXT: task.text},
        "metadata": _metadata(task),
        "suggestions": {_QUESTION: suggestion} if task.suggested else {},
        "responses": {},
        "vectors": {},
        "_server_id": None,
    }


def _studio_task(task: Task) -> dict[str, Any]:
    made: dict[str, Any] = {"data": {_TEXT: task.text, "task_id": task.id, **_metadata(task)}}
    if task.suggested:
        result = {
            "from_name": _QUESTION,
            "to_name": _TEXT,
            "type": "choices",
            "value": {"choices": [task.suggested]},
        }
        prediction = {"model_version": task.batch, "score": task.confidence, "result": [result]}
        made["predictions"] = [prediction]
    return made


def _metadata(task: Task) -> dict[str, str]:
    """Return the fields to filter by. An audit's task has no label, so it stays blind."""
    fields = {"purpose": task.purpose, "batch": task.batch, "given_label": task.label}
    return {name: value for name, value in fields.items() if value}


def read_foreign(path: Path, form: Form, tasks: Sequence[Task], labels: Sequence[str]) -> Read:
    """Read the reviewers' answers to ``tasks``.

    A task whose reviewers agree has an outcome; single opinions are returned too, for ``advise``.
    Raises BadInput that names the place of an unreadable record, an unknown task, or a label
    outside the taxonomy, and repeats no message text.
    """
    read: Callable[[Any], Iterator[AnsweredTask]]
    read = _argilla_opinions if form == "argilla" else _studio_opinions
    by_id = {task.id: task for task in tasks}
    opinions: dict[str, list[AnsweredTask]] = {}
    for number, record in enumerate(_load_list(path)):
        where = f"{path.name}[{number}]"
        try:
            found = list(read(record))
        except (KeyError, TypeError, AttributeError, IndexError):
            raise BadInput(
                f"{where}: is not a record of {form}'s JSON export: export the project as JSON"
            ) from None
        for opinion in found:
            _check(opinion, by_id, labels, where)
            opinions.setdefault(opinion.task, []).append(opinion)
    answers: list[Answer] = []
    disputed = 0
    for id_, given in opinions.items():
        task = by_id[id_]
        agreed = len({opinion.label for opinion in given}) == 1
        disputed += not agreed
        if agreed:
            answers.append(_answer(task, given[-1], "outcome"))
        if len(given) > 1:
            answers += [_answer(task, opinion, "opinion") for opinion in given]
    return Read(tuple(answers), len(by_id) - len(opinions), disputed)


def _load_list(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(records, list):
        raise BadInput(f"{path}: is not a list: export the project as JSON")
    return records


def _check(
    opinion: AnsweredTask, tasks: Mapping[str, Task], labels: Sequence[str], where: str
) -> None:
    if opinion.task not in tasks:
        raise BadInput(f"{where}: answers a task that is not in --tasks: name its file too")
    if opinion.label is not None and opinion.label not in labels:
        raise BadInput(f"{where}: the label is not in the taxonomy: rename it in the tool")


def _answer(task: Task, opinion: AnsweredTask, role: Literal["outcome", "opinion"]) -> Answer:
    label = opinion.label
    word: Literal["accept", "relabel", "drop"] = (
        "drop" if label is None else "accept" if label == task.label else "relabel"
    )
    return Answer(
        id=task.message_id,
        message_sha256=task.message_sha256,
        decision=word,
        new_label=(label or "") if word == "relabel" else "",
        decided_by=opinion.by,
        task_id=task.id,
        purpose=task.purpose,
        batch=task.batch,
        guideline=task.guideline,
        decided_at=opinion.at,
        role=role,
    )


def _argilla_opinions(record: Mapping[str, Any]) -> Iterator[AnsweredTask]:
    for response in (record.get("responses") or {}).get(_QUESTION, ()):
        if (value := response["value"]) is not None:
            yield AnsweredTask(
                str(record["id"]), _label(value), _pseudonym(response["user_id"]), None
            )


def _studio_opinions(record: Mapping[str, Any]) -> Iterator[AnsweredTask]:
    for annotation in record.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        by = annotation.get("completed_by")
        if isinstance(by, dict):
            by = by.get("id")  # not the mail address, which is personal data
        for result in annotation["result"]:
            if result.get("from_name") == _QUESTION and result.get("type") == "choices":
                label = _label(result["value"]["choices"][0])
                at = annotation.get("created_at")
                yield AnsweredTask(str(record["data"]["task_id"]), label, _pseudonym(by), at)


def _label(value: Any) -> str | None:
    if not isinstance(value, str):
        raise TypeError
    return None if value == NO_LABEL else label_name(value)


def _pseudonym(by: Any) -> str:
    """Return a user's number or UUID as a pseudonym."""
    return f"user-{_UNFIT.sub('-', str(by))}"[:64] if by not in {None, "None"} else "user-unknown"
