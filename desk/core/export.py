"""The export's files for ``clerk-trainer prepare`` and ``propose``: messages, and their decisions.

``messages.jsonl`` has the messages with the labels that they came with. ``decisions.csv`` has
``relabel`` for the reviewers' label (of a message from Kafka also if it is the model's label),
``accept`` if they kept the dataset's label, and ``drop`` if no label fits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.contract.exchange import Answer, AnswerRole, LabelSource, Purpose
from worker.contract.timestamps import rfc3339_from_ms


@dataclass(frozen=True, slots=True)
class ExportOpinion:
    """One reviewer's opinion. ``label`` is None if no label fits."""

    label: str | None
    note: str
    decided_by: str
    decided_ms: int
    guideline_version: int | None
    holds: bool


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One decided item.

    ``had`` is the model's label, "" if there was none. Of a task, ``given`` is the dataset's label
    and ``given_source`` its source, if the file says it. ``text`` is None if it was purged.
    ``message_sha256`` is that of ``worker.contract.text``. ``opinions`` are those that were not
    taken back, oldest first; one of them ``holds``. ``is_last`` is false if another item of the
    same message counts.
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
    """Yield an outcome for each message, and an opinion for each reviewer of an item that several
    reviewers decided or whose message is counted by another item."""
    for row in rows:
        if row.is_last:
            yield _answer(row, row.outcome, "outcome")
        if len(row.opinions) > 1 or not row.is_last:
            for opinion in row.opinions:
                yield _answer(row, opinion, "opinion")


def messages_jsonl(rows: Iterable[ExportRow], fallback: str) -> str:
    """Return the messages whose text is here as JSON lines: ``id``, ``message``, ``label``, and
    ``label_source``.

    A message that came without a label gets the reviewers' label. If no label fits it gets
    ``fallback``; its decision drops it.
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
    """Return the label and its source: the dataset's label, the model's (``teacher``), or the
    reviewers'."""
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
