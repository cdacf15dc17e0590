"""Decisions as the files that ``clerk-trainer prepare`` takes: messages, and a decision for each.

``--input messages.jsonl`` has the rows with the labels they had, ``--decisions decisions.csv`` what
people made of them: ``relabel`` to the label they chose (of a message from Kafka also where it is
the machine's own), ``accept`` where they left the dataset's, ``drop`` where no label fits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.contract.exchange import Answer, AnswerRole, LabelSource, Purpose
from worker.contract.timestamps import rfc3339_from_ms


@dataclass(frozen=True, slots=True)
class ExportOpinion:
    """What one person said. ``label`` is None where no label fits."""

    label: str | None
    note: str
    decided_by: str
    decided_ms: int
    guideline_version: int | None
    holds: bool


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One decided item. ``had`` is the machine's label that it came with, "" where it had none;
    ``given`` that of a task's dataset, and ``given_source`` where that one comes from, as far as
    the task says it. ``text`` is None where it was purged.

    ``message_sha256`` is that of ``worker.contract.text``. ``opinions`` are all that count, oldest
    first, one of which ``holds``. ``is_last`` is false where the same message was decided again.
    """

    id: str
    message_sha256: str
    had: str
    given: str | None
    text: str | None
    task_id: str | None
    purpose: Purpose | None
    batch: str | None
    opinions: tuple[ExportOpinion, ...]
    is_last: bool
    given_source: LabelSource | None = None

    @property
    def outcome(self) -> ExportOpinion:
        """The opinion that holds."""
        return next(each for each in self.opinions if each.holds)


def answers(rows: Iterable[ExportRow]) -> Iterator[Answer]:
    """Yield the decisions: what holds for each message, and what each person said where it was more
    than one, or of an item that was decided again."""
    for row in rows:
        if row.is_last:
            yield _answer(row, row.outcome, "outcome")
        if len(row.opinions) > 1 or not row.is_last:
            for opinion in row.opinions:
                yield _answer(row, opinion, "opinion")


def messages_jsonl(rows: Iterable[ExportRow], fallback: str) -> str:
    """Return those whose text is here as JSON lines: ``id``, ``message``, ``label``, and where that
    label comes from (``label_source``).

    A message that came without a label has what people gave it, or ``fallback`` where no label
    fits, which its decision drops.
    """
    return "".join(
        json.dumps(
            {"id": row.id, "message": row.text, **_labelled(row, fallback)}, ensure_ascii=False
        )
        + "\n"
        for row in rows
        if row.text is not None and row.is_last
    )


def _labelled(row: ExportRow, fallback: str) -> dict[str, str]:
    """Return the label that a message had, and its source: the dataset's, the machine's (a model:
    ``teacher``), or what people gave it."""
    if row.given:
        source: LabelSource = row.given_source or "export"
        return {"label": row.given, "label_source": source}
    if row.had:
        return {"label": row.had, "label_source": "teacher"}
    return {"label": row.outcome.label or fallback, "label_source": "person"}


def _answer(row: ExportRow, opinion: ExportOpinion, role: AnswerRole) -> Answer:
    label, version = opinion.label, opinion.guideline_version
    is_kept = label is not None and label == row.given
    return Answer(
        id=row.id,
        message_sha256=row.message_sha256,
        decision="drop" if label is None else "accept" if is_kept else "relabel",
        new_label="" if label is None or is_kept else label,
        note=opinion.note,
        decided_by=opinion.decided_by,
        task_id=row.task_id,
        purpose=row.purpose,
        batch=row.batch,
        guideline=str(version) if version is not None else None,
        label_source="person",
        decided_at=rfc3339_from_ms(opinion.decided_ms),
        role=role,
    )
