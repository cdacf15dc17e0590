"""What decisions are about: the texts of messages that no dataset holds yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from worker.contract.exchange import Answer, read_answers, read_tasks
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256


@dataclass(frozen=True, slots=True)
class Message:
    """A message and the label that it was shown with, if any."""

    id: str
    text: str
    label: str | None


def read_new_messages(paths: Sequence[Path]) -> dict[str, Message]:
    """Read messages by their digest from tasks (tasks/1) and from what ``clerk-desk export`` writes
    (JSON Lines with ``id``, ``message`` and perhaps ``label``). Raises BadInput, RecordRefused."""
    found: dict[str, Message] = {}
    for path in paths:
        messages = _of_tasks(path) if _is_tasks(path) else _of_export(path)
        found |= {message_sha256(message.text): message for message in messages}
    return found


def read_outcomes(paths: Sequence[Path]) -> dict[str, Answer]:
    """Read what was decided, by the message's digest; of several decisions the latest counts.

    Raises BadInput where two differ and their times do not tell which one is later.
    """
    found: dict[str, Answer] = {}
    for path in paths:
        for answer in read_answers(path):
            if answer.role != "outcome":
                continue
            before = found.get(answer.message_sha256)
            if before is None or _is_later(answer, before, path):
                found[answer.message_sha256] = answer
    return found


def _is_later(answer: Answer, before: Answer, path: Path) -> bool:
    if (answer.decision, answer.new_label) == (before.decision, before.new_label):
        return (answer.decided_at or "") >= (before.decided_at or "")
    if answer.decided_at == before.decided_at or None in {answer.decided_at, before.decided_at}:
        raise BadInput(
            f"{path.name}: {answer.id!r} is decided in two ways, and their times do not say which "
            "is later: keep one"
        )
    return (answer.decided_at or "") > (before.decided_at or "")


def _is_tasks(path: Path) -> bool:
    first = next(iter(_lines(path)), "{}")
    return '"tasks/1"' in first


def _of_tasks(path: Path) -> Iterable[Message]:
    return (Message(task.message_id, task.text, task.label) for task in read_tasks(path))


def _of_export(path: Path) -> Iterable[Message]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            text: str = record["message"] + ""
            label = label_name((record.get("label") or "") + "")
            yield Message(str(record["id"]), text, label or None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(
                f"{path.name}:{number}: must be an object with 'id' and 'message' (text)"
            ) from None


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({type(error).__name__})") from None
    return [line for line in text.split("\n") if line.strip()]
