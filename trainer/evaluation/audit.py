"""Audit the hold-out's labels: a reviewer labels a random sample blind, which gives the share of
wrong labels and the accuracy against true labels.

Every row of the sample's file has the sample's name: the hold-out's digest, a seed and a size.
Reading the file draws the sample again and compares, so no row can be missing or hand-picked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.artifacts.evaluation import (
    ANSWERS,
    AUDIT,
    Answer,
    AuditRecord,
    EvaluationRecord,
    Relabelled,
    check_unique,
)
from trainer.artifacts.files import PRIVATE
from trainer.dataset.folder import Dataset, Example, open_holdout
from trainer.dataset.labels import fit_label, suggest_label
from trainer.dataset.split import shuffle_key
from trainer.errors import BadInput
from trainer.evaluation.summary import verify_evaluation
from trainer.statistics.label_errors import corrected_accuracy, label_error_rate, sample_size
from worker.common.review_files import (
    ReviewFile,
    answer_of,
    read_review,
    write_review,
)
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.taxonomy import NO_LABEL, label_name
from worker.contract.timestamps import rfc3339_now

_COLUMNS = ("id", "sample", "message", "true_label", "note", "decided_by")
_NEEDED = ("id", "sample", "true_label")
_SAMPLE = re.compile(r"([0-9a-f]{16})-(-?[0-9]{1,18})-([0-9]{1,9})")


HALF_WIDTH = 0.03
"""The default half width of the error rate's 95 % interval."""

_EXPECTED_RATE = 0.1  # of wrong labels; with fewer the interval is narrower


def draw_sample(
    dataset: Dataset, out: Path, *, half_width: float, size: int | None, seed: int
) -> int:
    """Write a simple random sample of the hold-out to ``out``, without labels and in random order.
    Return its size: ``size``, or the size that gives the ``half_width`` of the 95 % interval.

    The hold-out's opening is counted. Raises BadInput, before opening, if ``out`` exists or its
    folder does not.
    """
    if out.exists():
        raise BadInput(f"{out}: exists and may contain a reviewer's work: give another file")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: this folder does not exist: create it or give another --out")
    name, examples = draw_examples(dataset, half_width=half_width, size=size, seed=seed)
    # Without the given label, which a reviewer would tend to confirm.
    rows = [{"id": example.id, "sample": name, "message": example.message} for example in examples]
    write_atomically(out, write_review(_COLUMNS, rows), mode=PRIVATE)
    return len(examples)


def draw_examples(
    dataset: Dataset, *, half_width: float = HALF_WIDTH, size: int | None = None, seed: int = 0
) -> tuple[str, list[Example]]:
    """Open the hold-out, which is counted, and return the name of a simple random sample and its
    examples in random order."""
    total: int = dataset.record["files"]["holdout.jsonl"]["examples"]
    wanted = min(total, size or sample_size(half_width, _EXPECTED_RATE, total))
    name = _name(dataset.holdout_sha256, seed, wanted)
    examples = {
        example.id: example for example in open_holdout(dataset, purpose="audit", subject=name)
    }
    return name, [examples[id_] for id_ in _draw(list(examples), seed, wanted)]


def audit_evaluation(folder: Path, sample: Path) -> AuditRecord:
    """Read a labelled sample, write ``audit.json`` into the evaluation's folder and return it.

    Raises BadInput for a sample of another hold-out, an incomplete one, or a row without a valid
    label; ProofFailed if the evaluation does not follow from its predictions. No message text is
    read.
    """
    evaluation = verify_evaluation(folder)
    if evaluation.limited:
        raise BadInput(f"{folder}: covers only a part of the hold-out: evaluate without --limit")
    answers = ANSWERS.read(folder)
    check_unique(answers, folder / ANSWERS.name)
    truth, seed = _read_sample(sample, evaluation, [answer.id for answer in answers])
    record = _judge(evaluation, answers, truth, seed)
    AUDIT.write(folder, record)
    return record


def _judge(
    evaluation: EvaluationRecord,
    answers: Sequence[Answer],
    truth: Mapping[str, str | None],
    seed: int,
) -> AuditRecord:
    correct = sum(answer.predicted == answer.label for answer in answers)
    audited = [(answer, truth[answer.id]) for answer in answers if answer.id in truth]
    wrong = Counter((a.label or "", true) for a, true in audited if a.label != true)
    gained = sum(a.predicted == true != a.label for a, true in audited)
    lost = sum(a.predicted == a.label != true for a, true in audited)
    errors = wrong.total()
    rate = label_error_rate(errors, len(audited), len(answers))
    corrected = corrected_accuracy(
        correct,
        len(answers),
        gained=gained,
        lost=lost,
        sample=len(audited),
        effect=evaluation.design_effect,
    )
    return AuditRecord(
        created_at=rfc3339_now(),
        adapter=evaluation.adapter,
        dataset=evaluation.dataset,
        seed=seed,
        examples=len(answers),
        audited=len(audited),
        label_errors=errors,
        label_error_rate=rate.value,
        label_error_rate_interval_95=rate.interval,
        accuracy=evaluation.accuracy,
        accuracy_interval_95=evaluation.accuracy_interval_95,
        corrected_accuracy=corrected.value,
        corrected_accuracy_interval_95=corrected.interval,
        gained=gained,
        lost=lost,
        relabelled=tuple(
            Relabelled(given=given, true=true, messages=messages)
            for (given, true), messages in wrong.most_common()
        ),
    )


def _read_sample(
    path: Path, evaluation: EvaluationRecord, ids: Sequence[str]
) -> tuple[dict[str, str | None], int]:
    """Return the true label by id (None: no label fits), and the seed. The file is that of
    ``audit-sample``, or the desk's decisions of an audit. Raises BadInput with all its problems."""
    try:
        file = read_review(path, ("id",))
        if "decision" in file.columns:
            rows = _rows_of_answers(file, evaluation.labels)
        else:
            rows = _rows_of_sample(file, evaluation.labels)
        seed = _check_sample(file, rows, evaluation, ids)
    except RecordRefused as error:
        raise BadInput(str(error)) from None
    if problems := file.problems():
        raise BadInput(*problems)
    return {row.id: row.truth for row in rows}, seed


@dataclass(frozen=True, slots=True)
class _Audited:
    """A row of a labelled sample; ``truth`` None: no label fits."""

    line: int
    id: str
    sample: str
    truth: str | None


def _rows_of_sample(file: ReviewFile, labels: Sequence[str]) -> list[_Audited]:
    missing = [name for name in _NEEDED if name not in file.columns]
    if missing:
        raise BadInput(
            f"{file.name}: no column {missing[0]!r}: give the file of clerk-trainer audit-sample"
        )
    rows: dict[str, _Audited] = {}
    for line, cells in file.rows:
        id_ = cells["id"].strip()
        written = fit_label(label_name(cells["true_label"]), labels)
        if id_ in rows:
            file.note(line, f"{id_!r} occurs twice: keep one")
        if not written:
            file.note(
                line,
                f"no true_label: label every row, or write {NO_LABEL!r} if no label fits: gaps "
                "would bias the result",
            )
        elif problem := _wrong_label(written, labels):
            file.note(line, problem)
        truth = written if written in labels else None
        rows[id_] = _Audited(line, id_, cells["sample"].strip(), truth)
    return list(rows.values())


def _rows_of_answers(file: ReviewFile, labels: Sequence[str]) -> list[_Audited]:
    """Return the same from a file of decisions (``worker.contract.exchange``) of an audit."""
    rows = []
    for line, cells in file.rows:
        answer = answer_of(file, line, cells) if cells["decision"].strip() else None
        # An export has other purposes too, and each reviewer's own opinion beside the outcome.
        if answer is None or not answer.audits_holdout or answer.role != "outcome":
            continue
        rows.append(_Audited(line, answer.id, answer.batch or "", answer.new_label or None))
        if answer.new_label and (problem := _wrong_label(answer.new_label, labels)):
            file.note(line, problem)
    if not rows:
        file.check()
        raise BadInput(f"{file.name}: has no decision of an audit: export the audit's project")
    return rows


def _wrong_label(written: str, labels: Sequence[str]) -> str | None:
    """Return what is wrong with a label in a cell."""
    # The cell is not quoted below: a slip of the hand may have put a message there.
    if written in labels or written.casefold() == NO_LABEL:
        return None
    return (
        f"true_label ({len(written)} characters) is not a label{suggest_label(written, labels)}: "
        f"use {', '.join(labels)}, or {NO_LABEL}"
    )


def _check_sample(
    file: ReviewFile, rows: Sequence[_Audited], evaluation: EvaluationRecord, ids: Sequence[str]
) -> int:
    """Return the sample's seed; problems are noted if the rows are not exactly the sample. Raises
    BadInput for a file of no sample, or of another hold-out's."""
    # The commonest name, so that one altered cell is a problem of its row and not of the file.
    [(name, _)] = Counter(row.sample for row in rows).most_common(1) or [("", 0)]
    found = _SAMPLE.fullmatch(name)
    if found is None:
        raise BadInput(f"{file.name}: the column 'sample' was changed: draw and label a new sample")
    holdout, seed, size = found[1], int(found[2]), int(found[3])
    if not evaluation.dataset.holdout_sha256.startswith(holdout):
        raise BadInput(
            f"{file.name}: is a sample of hold-out {holdout}, but the evaluation is of "
            f"{evaluation.dataset.holdout_sha256[:16]}: draw a sample of that hold-out"
        )
    drawn = set(_draw(ids, seed, size))
    for row in rows:
        if row.sample != name:
            file.note(row.line, f"the column 'sample' was changed: write {name}")
        if row.id not in drawn:
            file.note(row.line, "does not belong to the sample: restore the row's id")
    if missing := len(drawn - {row.id for row in rows}):
        file.note(0, f"{missing} rows of the sample are missing: restore what audit-sample wrote")
    return seed


def _name(holdout_sha256: str, seed: int, size: int) -> str:
    return f"{holdout_sha256[:16]}-{seed}-{size}"


def _draw(ids: Sequence[str], seed: int, size: int) -> list[str]:
    # By a hash of each id: the same sample whatever the order of the ids, on any machine.
    return sorted(ids, key=lambda id_: shuffle_key(seed, f"audit\n{id_}"))[:size]
