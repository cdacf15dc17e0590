"""Audit the hold-out's labels: a reviewer labels a random sample blind, which gives the share of
wrong labels and the accuracy against true labels.

Every task of the sample (``tasks --for audit``) and every decision on it has the sample's name: the
hold-out's digest and a size. Reading the decisions draws the sample again and compares, so none can
be missing or hand-picked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from trainer.dataset.folder import Dataset, Example, open_holdout
from trainer.dataset.split import shuffle_key
from trainer.errors import BadInput
from trainer.evaluation.summary import verify_evaluation
from trainer.statistics.label_errors import corrected_accuracy, label_error_rate, sample_size
from worker.common.review_files import ANSWERS_NEED, ReviewFile, answer_of, read_review
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Answer as Decided
from worker.contract.timestamps import rfc3339_now

_SAMPLE = re.compile(r"([0-9a-f]{16})-([0-9]{1,9})")

HALF_WIDTH = 0.03
"""The half width of the error rate's 95 % interval in a sample of the default size."""

_EXPECTED_RATE = 0.1  # of wrong labels; with fewer the interval is narrower


def draw_examples(dataset: Dataset, size: int | None = None) -> tuple[str, list[Example]]:
    """Open the hold-out, which is counted, and return the name of a simple random sample and its
    examples in random order. A larger sample contains a smaller one."""
    total: int = dataset.record["files"]["holdout.jsonl"]["examples"]
    wanted = min(total, size or sample_size(HALF_WIDTH, _EXPECTED_RATE, total))
    name = f"{dataset.holdout_sha256[:16]}-{wanted}"
    examples = {
        example.id: example for example in open_holdout(dataset, purpose="audit", subject=name)
    }
    return name, [examples[id_] for id_ in _draw(list(examples), wanted)]


def audit_evaluation(folder: Path, decisions: Path) -> AuditRecord:
    """Read the decisions on a sample, write ``audit.json`` next to the evaluation and return it.

    Raises BadInput for a sample of another hold-out, an incomplete one, or a decision without a
    valid label; ProofFailed if the evaluation does not follow from its predictions. No message
    text is read.
    """
    evaluation = verify_evaluation(folder)
    answers = ANSWERS.read(folder)
    check_unique(answers, folder / ANSWERS.name)
    truth = _read_decisions(decisions, evaluation, [answer.id for answer in answers])
    record = _judge(evaluation, answers, truth)
    AUDIT.write(folder, record)
    return record


def _judge(
    evaluation: EvaluationRecord, answers: Sequence[Answer], truth: Mapping[str, str | None]
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


def _read_decisions(
    path: Path, evaluation: EvaluationRecord, ids: Sequence[str]
) -> dict[str, str | None]:
    """Return the true label of each message of the sample (None: no label fits). Raises BadInput
    with all problems of the file."""
    try:
        file = read_review(path, ANSWERS_NEED)
        rows = dict(_audited(file))
        if not rows:
            file.check()
            raise BadInput(f"{file.name}: has no decision of an audit: export the audit's project")
        for line, answer in rows.items():
            # The cell is not quoted: a slip of the hand may have put a message there.
            if answer.new_label and answer.new_label not in evaluation.labels:
                known = ", ".join(evaluation.labels)
                file.note(line, f"new_label is not a label: use one of {known}")
            # Its label would be "none fits": the reviewer did not see the label that this accepts.
            if answer.decision == "accept":
                file.note(line, "an audit is blind: write relabel and the label, or drop")
        _check_sample(file, rows, evaluation, ids)
        file.check()
    except RecordRefused as error:
        raise BadInput(str(error)) from None
    return {answer.id: answer.new_label or None for answer in rows.values()}


def _audited(file: ReviewFile) -> Iterator[tuple[int, Decided]]:
    """Yield the decisions on the hold-out's labels by their lines."""
    for line, cells in file.rows:
        answer = answer_of(file, line, cells) if cells["decision"].strip() else None
        # An export has other purposes too, and each reviewer's own opinion.
        if answer is not None and answer.audits_holdout and answer.role == "outcome":
            yield line, answer


def _check_sample(
    file: ReviewFile,
    rows: Mapping[int, Decided],
    evaluation: EvaluationRecord,
    ids: Sequence[str],
) -> None:
    """Note as problems if the rows are not exactly a sample. Raises BadInput for a file of no
    sample, or of another hold-out's."""
    # The commonest name, so that one altered cell is a problem of its row and not of the file.
    [(name, _)] = Counter(answer.batch or "" for answer in rows.values()).most_common(1)
    found = _SAMPLE.fullmatch(name)
    if found is None:
        raise BadInput(f"{file.name}: the column 'batch' was changed: draw and label a new sample")
    if not evaluation.dataset.holdout_sha256.startswith(found[1]):
        raise BadInput(
            f"{file.name}: is a sample of hold-out {found[1]}, but the evaluation is of "
            f"{evaluation.dataset.holdout_sha256[:16]}: draw a sample of that hold-out"
        )
    drawn = set(_draw(ids, int(found[2])))
    for line, answer in rows.items():
        if answer.batch != name:
            file.note(line, f"the column 'batch' was changed: write {name}")
        if answer.id not in drawn:
            file.note(line, "does not belong to the sample: restore the row's id")
    if missing := len(drawn - {answer.id for answer in rows.values()}):
        file.note(0, f"{missing} messages of the sample are missing: decide on all of them")


def _draw(ids: Sequence[str], size: int) -> list[str]:
    # By a hash of each id: the same sample whatever the order of the ids, on any machine.
    return sorted(ids, key=lambda id_: shuffle_key(0, f"audit\n{id_}"))[:size]
