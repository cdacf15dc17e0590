"""Audit the hold-out's labels: a reviewer labels a random sample blind, which gives the share of
wrong labels and the accuracy against true labels.

Every row of the sample's file has the sample's name: the hold-out's digest, a seed and a size.
Reading the file draws the sample again and compares, so no row can be missing or hand-picked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
from trainer.dataset.labels import guard, suggest_label, write_review_csv
from trainer.dataset.split import shuffle_key
from trainer.dataset.text_files import parse_csv, read_edited
from trainer.errors import BadInput
from trainer.evaluation.summary import verify_evaluation
from trainer.statistics.label_errors import corrected_accuracy, label_error_rate, sample_size
from worker.contract.digest import write_atomically
from worker.contract.exchange import read_answers
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
    rows = [
        {"id": example.id, "sample": name, "message": guard(example.message)}
        for example in examples
    ]
    write_atomically(out, write_review_csv(_COLUMNS, rows).encode("utf-8"), mode=PRIVATE)
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
        correct, len(answers), gained=gained, lost=lost, sample=len(audited)
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
    """Return the true label by id (None: no label fits), and the seed."""
    top, header, records = parse_csv(read_edited(path), path.name, columns=(*_NEEDED, "decision"))
    if "decision" in header:
        return _read_answers(path, evaluation, ids)
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise BadInput(
            f"{path.name}:{top}: no column {missing[0]!r}: give the file of clerk-trainer "
            "audit-sample"
        )
    truth: dict[str, str | None] = {}
    names: set[str] = set()
    undecided = []
    for line, cells in records:
        row = dict(zip(header, cells, strict=True))
        where, id_ = f"{path.name}:{line}", row["id"].strip()
        if id_ in truth:
            raise BadInput(f"{where}: {id_!r} occurs twice: keep one")
        if not row["true_label"].strip():
            undecided.append(where)
        truth[id_] = read_true_label(row["true_label"], evaluation.labels, where)
        names.add(row["sample"].strip())
    seed = _check_sample(path, names, evaluation, ids, set(truth))
    if undecided:
        raise BadInput(
            f"{undecided[0]}: {len(undecided)} of {len(truth)} rows have no true_label: label "
            f"every row, or write {NO_LABEL!r} if no label fits: gaps would bias the result"
        )
    return truth, seed


def _read_answers(
    path: Path, evaluation: EvaluationRecord, ids: Sequence[str]
) -> tuple[dict[str, str | None], int]:
    """Return the same from a file of decisions (``worker.contract.exchange``) of an audit."""
    found = [
        answer
        for answer in read_answers(path)
        if answer.audits_holdout and answer.role == "outcome"
    ]
    if not found:
        raise BadInput(f"{path.name}: has no decision of an audit: export the audit's project")
    truth = {
        answer.id: read_true_label(answer.new_label or NO_LABEL, evaluation.labels, path.name)
        for answer in found
    }
    names = {answer.batch or "" for answer in found}
    return truth, _check_sample(path, names, evaluation, ids, set(truth))


def read_true_label(written: str, labels: Sequence[str], where: str) -> str | None:
    """Return the label in a cell; None if no label fits. Raises BadInput."""
    written = label_name(written)
    if written in labels:
        return written
    if written.casefold() in {"", NO_LABEL}:
        return None
    raise BadInput(
        f"{where}: true_label ({len(written)} characters) is not a label"
        f"{suggest_label(written, labels)}: use {', '.join(labels)}, or {NO_LABEL}"
    )


def _check_sample(
    path: Path, names: set[str], evaluation: EvaluationRecord, ids: Sequence[str], there: set[str]
) -> int:
    """Return the sample's seed. Raises BadInput if the rows are not exactly the sample."""
    found = _SAMPLE.fullmatch(names.pop()) if len(names) == 1 else None
    if found is None:
        raise BadInput(f"{path.name}: the column 'sample' was changed: draw and label a new sample")
    holdout, seed, size = found[1], int(found[2]), int(found[3])
    if not evaluation.dataset.holdout_sha256.startswith(holdout):
        raise BadInput(
            f"{path.name}: is a sample of hold-out {holdout}, but the evaluation is of "
            f"{evaluation.dataset.holdout_sha256[:16]}: draw a sample of that hold-out"
        )
    drawn = set(_draw(ids, seed, size))
    if drawn != there:
        raise BadInput(
            f"{path.name}: {len(drawn - there)} rows of the sample are missing and "
            f"{len(there - drawn)} do not belong to it: restore the rows that audit-sample wrote"
        )
    return seed


def _name(holdout_sha256: str, seed: int, size: int) -> str:
    return f"{holdout_sha256[:16]}-{seed}-{size}"


def _draw(ids: Sequence[str], seed: int, size: int) -> list[str]:
    # By a hash of each id: the same sample whatever the order of the ids, on any machine.
    return sorted(ids, key=lambda id_: shuffle_key(seed, f"audit\n{id_}"))[:size]
