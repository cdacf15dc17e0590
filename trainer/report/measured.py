"""Sections about a run's measurements: mistakes, labels, confidence, and learning curves.

Two labels are confused in one direction or in both, and the remedies differ. One-way: messages of
one label are answered with the other but hardly ever the reverse; the model needs more examples of
the first label close to the second. Two-way: the labels overlap; a clearer taxonomy helps before
more data does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer import facts, numbers
from trainer.artifacts.evaluation import Answer, EvaluationRecord
from trainer.artifacts.training import Epoch, Step
from trainer.report.charts import (
    STYLES,
    Chart,
    Line,
    averaged,
    bar,
    confusion_chart,
    line_chart,
    smoothed,
    span,
)
from trainer.report.page import Block, Content, Drawn, readable, show_text, small
from trainer.report.run import Input, Run, lacks, of_evaluation
from trainer.statistics.figures import CoveragePoint
from trainer.statistics.metrics import ALPHA, binomial_tail, share_interval

MOST_PAIRS = 12
MOST_ERRORS = 100
AT_ONCE = 12

BALANCED = 1 / 3
FEWEST = 6
"""The fewest mistakes with which the test can reject, for two labels of equal size."""

ONE_WAY = "one-way"
TWO_WAY = "two-way"
UNCLEAR = "too few"

RULE = (
    "A pair is one-way if a two-sided exact binomial test rejects, at p < 0.05, that mistakes are "
    "distributed over the two directions like the sizes of the labels. It is two-way if the test "
    "does not reject, there are six mistakes or more, and the rarer direction has at least a third "
    "of them. Otherwise there are too few mistakes. Mistakes in messages that belong together "
    "count as fewer. The p-values are not adjusted for the number of pairs: they set priorities "
    "and prove nothing."
)


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of labels and its mistakes: ``forth`` messages of ``label`` were answered with
    ``other``, ``back`` the reverse. ``forth`` is the more frequent, relative to the label sizes."""

    label: str
    other: str
    forth: int
    back: int
    p: float
    kind: str

    @property
    def total(self) -> int:
        """Mistakes between the two labels."""
        return self.forth + self.back


def confusion_section(run: Run) -> Content:
    """Return the confusion matrix and its reading."""
    if run.evaluation is None:
        return lacks(Input.EVALUATION)
    labels, matrix = run.evaluation.labels, run.evaluation.confusion
    pairs = confused_pairs(labels, matrix, run.predictions)
    shown = [pair for pair in pairs if pair.total > 1][:MOST_PAIRS]  # one mistake is not a pattern
    reading = {
        "pairs": [(pair, numbers.probability(pair.p)) for pair in shown],
        "all_pairs": len(pairs),
        "mistakes": sum(pair.total for pair in pairs),
        "shown_mistakes": sum(pair.total for pair in shown),
    }
    return [confusion_chart(labels, matrix), Drawn("confusion", reading), small(RULE)]


@of_evaluation
def labels_section(evaluation: EvaluationRecord) -> Content:
    """Return the accuracy, and every label's precision, recall and F1, the weakest first."""
    rows = []
    for figures in sorted(evaluation.per_label, key=lambda label: (label.f1, label.label)):
        recall = facts.recall_interval(figures)
        precision = facts.precision_interval(evaluation, figures)
        rows.append(
            {
                "label": figures.label,
                "support": numbers.count(figures.support),
                "f1": numbers.decimal(figures.f1),
                "f1_bar": bar((figures.f1, "s3")),
                "precision": numbers.percent(figures.precision),
                "precision_span": span(*precision, figures.precision),
                "precision_interval": numbers.interval(precision),
                "recall": numbers.percent(figures.recall),
                "recall_span": span(*recall, figures.recall),
                "recall_interval": numbers.interval(recall),
            }
        )
    return [list(facts.overall(evaluation)), Drawn("labels", {"rows": rows})]


def languages_section(run: Run) -> Content:
    """Return the accuracy by language."""
    if not run.predictions or run.evaluation is None:
        return lacks(Input.PREDICTIONS)
    table = facts.by_language(run.predictions, run.evaluation.design_effect)
    return [table or "No second language has 20 held-out messages."]


def errors_section(run: Run) -> Content:
    """Return the wrong answers, the most confident first."""
    if not run.predictions:
        return lacks(Input.PREDICTIONS)
    wrong = run.mistakes
    shown = wrong[:MOST_ERRORS]
    drawn = {
        "at_once": AT_ONCE,
        "rows": [
            {
                "id": readable(answer.id),
                "label": answer.label,
                "predicted": answer.predicted,
                "confidence": numbers.sureness(answer.confidence),
                "bar": bar((answer.confidence, "s2")),
                "review": answer.review,
                "text": show_text(run.texts, answer.id),
            }
            for answer in shown
        ],
        "wrong": len(wrong),
        "unseen": sum(not answer.review for answer in wrong),
        "true_labels": sorted({str(answer.label) for answer in shown}),
        "given_labels": sorted({answer.predicted for answer in shown}),
        "with_texts": run.texts is not None,
    }
    return [Drawn("errors", drawn)]


def confused_pairs(
    labels: Sequence[str],
    confusion: Sequence[Sequence[int]],
    answers: Sequence[Answer] = (),
) -> list[Confusion]:
    """Return every confused pair of labels, the most mistakes first.

    ``confusion[i][j]`` counts messages of true label i that were answered with label j; ``answers``
    are these messages', and say which of them belong together.
    """
    found: list[Confusion] = []
    effects = _effects(answers)
    for i in range(len(labels)):
        mixed = (j for j in range(i + 1, len(labels)) if confusion[i][j] + confusion[j][i])
        found.extend(
            _judge(labels, confusion, i, j, effects.get(frozenset((labels[i], labels[j])), 1.0))
            for j in mixed
        )
    return sorted(found, key=lambda pair: (-pair.total, pair.p, pair.label, pair.other))


def _effects(answers: Sequence[Answer]) -> dict[frozenset[str], float]:
    """Return how many mistakes between two labels count as one, by pair: those of one thread go in
    one direction, so this is the number of mistakes in an average mistake's group."""
    sizes: defaultdict[frozenset[str], Counter[str]] = defaultdict(Counter)
    for each in answers:
        if each.label != each.predicted:
            group = f"alone {each.id}" if each.group is None else str(each.group)
            sizes[frozenset((str(each.label), each.predicted))][group] += 1
    return {
        pair: sum(size * size for size in found.values()) / found.total()
        for pair, found in sizes.items()
    }


def _judge(
    labels: Sequence[str], confusion: Sequence[Sequence[int]], i: int, j: int, effect: float
) -> Confusion:
    sizes = sum(confusion[i]), sum(confusion[j])
    expected = sizes[0] / sum(sizes)
    total = confusion[i][j] + confusion[j][i]
    if confusion[i][j] < expected * total:
        i, j, expected = j, i, 1 - expected
    forth, back = confusion[i][j], confusion[j][i]
    p = min(1.0, 2 * binomial_tail(forth / effect, total / effect, expected))
    if p < ALPHA:
        kind = ONE_WAY
    elif total >= FEWEST and min(forth, back) >= BALANCED * total:
        kind = TWO_WAY
    else:
        kind = UNCLEAR
    return Confusion(labels[i], labels[j], forth, back, p, kind)


# Confidence: reliability, coverage, and messages that fit no label.


@of_evaluation
def calibration_section(evaluation: EvaluationRecord) -> Content:
    """Return the reliability diagram and the calibration error."""
    blocks: list[Block] = [list(facts.calibration(evaluation))]
    if evaluation.calibration.reliability:
        blocks.append(_reliability_chart(evaluation))
    return blocks


@of_evaluation
def coverage_section(evaluation: EvaluationRecord) -> Content:
    """Return accuracy against the share that is answered without review."""
    curve = [point for point in evaluation.coverage if point.accuracy]
    if not curve:
        return "No answer is right without review."
    return [list(facts.review(evaluation)), _coverage_chart(curve, evaluation)]


@of_evaluation
def out_of_scope_section(evaluation: EvaluationRecord) -> Content:
    """Return how well messages that fit no label are detected."""
    if evaluation.out_of_scope is None:
        return f"{Input.EVALUATION.command} was not given messages from outside the taxonomy."
    about = (
        "AUROC is the probability that a message that fits no label looks more doubtful than one "
        "that does: 0.5 is chance, 1 is perfect."
    )
    return [list(facts.outside_labels(evaluation)), small(about)]


@of_evaluation
def steering_section(evaluation: EvaluationRecord) -> Content:
    """Return how often a sentence that a customer adds chooses the label."""
    found = evaluation.steering
    if found is None:
        return f"{Input.EVALUATION.command} was run with --no-steering."
    spans = [numbers.interval(each.interval_95) for each in (found.every, found.unreviewed)]
    about = (
        f"A held-out message gets an instruction that names another label, such as a forged note "
        f"that it was already filed, or a neutral sentence of the same length. An answer flips if "
        f"it becomes the label that is named. Intervals with the instruction: {spans[0]}, without "
        f"review {spans[1]}. The instructions are not those of the training."
    )
    return [facts.steering(evaluation), small(about)]


def _reliability_chart(record: EvaluationRecord) -> Chart:
    # No histogram of confidences next to it: the table below has the size of each group.
    bins = [group for group in record.calibration.reliability if group.count]
    bins.sort(key=lambda group: group.confidence)
    spans = [share_interval(each.accuracy, each.count, record.design_effect) for each in bins]
    lowest = min(*(each.confidence for each in bins), *(low for low, _ in spans))
    # At most 0.9, so that the axes always span a tenth.
    low = max(0.0, min(lowest - 0.02, 0.9))
    points = tuple((each.confidence, each.accuracy) for each in bins)
    return line_chart(
        [
            Line("the adapter", points, "s1", faint=True, spans=tuple(spans)),
            Line("perfect", ((low, low), (1.0, 1.0)), "ideal", marked=False),
        ],
        title="Reliability",
        caption=(
            "Each dot is a group of messages with similar confidence, with the 95% interval of "
            "its accuracy. Below the dashed line the adapter is overconfident."
        ),
        x_title="confidence",
        y_title="accuracy",
        write_y=numbers.percent,
        percent=True,
        percent_x=True,
        x_range=(low, 1.0),
        y_range=(low, 1.0),
        table=(
            ("mean confidence", "right", "95% interval", "messages"),
            tuple(
                (
                    numbers.percent(each.confidence),
                    numbers.percent(each.accuracy),
                    numbers.interval(bounds),
                    numbers.count(each.count),
                )
                for each, bounds in zip(bins, spans, strict=True)
            ),
        ),
    )


def _coverage_chart(curve: Sequence[CoveragePoint], record: EvaluationRecord) -> Chart:
    review = record.review
    points = tuple(sorted((point.coverage, point.accuracy or 0.0) for point in curve))
    lines = [Line("accuracy without review", points, "s1")]
    if review.accepted_accuracy is not None:
        deployed = (1 - review.share, review.accepted_accuracy)
        lines.append(Line("as deployed", (deployed,), "s2"))
    if review.coverage_at_wanted and review.accuracy_at_wanted:
        name = f"threshold for {numbers.percent(review.wanted_precision)}"
        wanted = (review.coverage_at_wanted, review.accuracy_at_wanted)
        lines.append(Line(name, (wanted,), "s3"))
    lowest = min(y for line in lines for _, y in line.points)
    return line_chart(
        lines,
        title="Accuracy by coverage",
        caption=(
            "On the right every message is answered without review; to the left only the more "
            "confident ones, and the rest goes to review."
        ),
        x_title="share answered without review",
        y_title="accuracy of those",
        table=(
            ("confidence from", "answered", "right"),
            tuple(
                (
                    numbers.percent(point.threshold),
                    numbers.percent(point.coverage),
                    numbers.percent(point.accuracy),
                )
                for point in curve
            ),
        ),
        write_y=numbers.percent,
        percent=True,
        percent_x=True,
        x_range=(min(0.0 if points[0][0] < 0.5 else 0.5, points[0][0]), 1.0),
        y_range=(max(0.0, lowest - 0.01), 1.0),
    )


# Learning: loss by step, scores by epoch, and accuracy by amount of data.


def curves_section(run: Run) -> Content:
    """Return the learning curves of the training."""
    record, epochs = run.training, run.training.epochs
    if record.imported is not None:
        return "It was imported: how and what it learnt is unknown."
    if not epochs:
        return lacks(Input.TRAINING)
    summary = f"Epoch {record.best_epoch} is the best on validation; the weights kept are those of"
    summary += f" {record.kept}."
    if record.stopped_early:
        summary += " The training stopped early because validation no longer improved."
    columns = ("epoch", "training loss", "validation loss", "with temperature", "accuracy",
               "macro-F1", "time", "tokens/s")  # fmt: skip
    rows = [
        (
            str(epoch.number),
            numbers.decimal(epoch.train_loss),
            numbers.decimal(epoch.validation_loss),
            numbers.decimal(epoch.validation_calibrated_loss),
            numbers.percent(epoch.validation_accuracy),
            numbers.decimal(epoch.validation_macro_f1),
            numbers.duration(epoch.seconds),
            numbers.significant(epoch.tokens_per_s),
        )
        for epoch in epochs
    ]
    # The learning rate and the gradient norm had charts too. They decided nothing, and steps.jsonl
    # has the figures.
    charts = [_loss(run), _scores(run)]
    return [summary, charts, facts.Table(columns, rows)]


def data_size_section(run: Run) -> Content:
    """Return the learning curves over the number of training examples."""
    curves = facts.learning_curves(run.duel)
    if not curves:
        return (
            f"{Input.DUEL.path} has no learning curve over data size: {Input.DUEL.command} "
            "measures those of the baselines."
        )
    sizes = sorted({x for curve in curves.values() for x, _ in curve})
    chart = line_chart(
        [
            Line(name, tuple(curve), STYLES[at % len(STYLES)])
            for at, (name, curve) in enumerate(curves.items())
        ],
        title="Accuracy by number of training examples",
        caption="Validation accuracy of models trained on this many examples of each label.",
        x_title="examples per label",
        y_title="validation accuracy",
        write_y=numbers.percent,
        percent=True,
        logarithmic=len(sizes) > 1 and sizes[-1] / sizes[0] >= 4,
    )
    gains = [
        (
            name,
            (
                f"{numbers.points(curve[-1][1] - curve[-2][1])} from "
                f"{numbers.count(curve[-2][0])} to {numbers.count(curve[-1][0])} examples per label"
            ),
        )
        for name, curve in curves.items()
        if len(curve) > 1
    ]
    about = "If a line still rises at its end, more examples will help; if it is flat, they won't."
    return [gains, small(about), chart]


def _loss(run: Run) -> Chart:
    epochs = run.training.epochs
    ends = _epoch_ends(run.steps, epochs)
    by_step = len(run.steps) > 1
    if by_step:
        points = [(float(step.step), step.loss) for step in run.steps]
        window = max(3, len(points) // 25)
        lines = [
            Line("training, each step", averaged(points), "s5", marked=False, faint=True),
            Line(f"training, mean of {window} steps", averaged(smoothed(points, window)), "s1",
                 marked=False),
        ]  # fmt: skip
    else:
        lines = [Line("training", _points(ends, [epoch.train_loss for epoch in epochs]), "s1")]
    lines.append(
        Line("validation", _points(ends, [epoch.validation_loss for epoch in epochs]), "s2")
    )
    calibrated = [epoch.validation_calibrated_loss for epoch in epochs]
    lines.append(Line("validation, with temperature", _points(ends, calibrated), "s3"))
    highest = max(y for line in lines for _, y in line.points)
    top = _crop(lines)
    caption = (
        "Nats per label. Validation is measured after each epoch, without and with the fitted "
        "temperature; the loss with temperature selects the epoch to keep."
    )
    if highest > top:
        caption += f" Losses up to {numbers.decimal(highest)} are off the scale."
    best = run.training.best_epoch
    return line_chart(
        [replace(line, points=tuple((x, y) for x, y in line.points if y <= top)) for line in lines],
        title="Loss",
        caption=caption,
        x_title="step" if by_step else "epoch",
        y_title="loss",
        write_y=numbers.decimal,
        y_range=(0.0, top * 1.04),
        marks=[(ends[[epoch.number for epoch in epochs].index(best)], f"best: epoch {best}")],
    )


def _scores(run: Run) -> Chart:
    epochs = run.training.epochs
    at = [float(epoch.number) for epoch in epochs]
    return line_chart(
        [
            Line("accuracy", _points(at, [each.validation_accuracy for each in epochs]), "s1"),
            Line("macro-F1", _points(at, [each.validation_macro_f1 for each in epochs]), "s3"),
        ],
        title="Validation scores",
        caption="Accuracy and the mean F1 over the labels, after each epoch.",
        x_title="epoch",
        y_title="score",
        write_y=numbers.percent,
        percent=True,
        marks=[(run.training.best_epoch, "best")],
    )


def _epoch_ends(steps: Sequence[Step], epochs: Sequence[Epoch]) -> list[float]:
    # Without steps.jsonl the axis has epochs instead of steps.
    last = {step.epoch: float(step.step) for step in steps}
    return [last.get(epoch.number, float(epoch.number)) for epoch in epochs]


def _points(at: Sequence[float], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(at, values, strict=True))


def _crop(lines: Sequence[Line]) -> float:
    """Return the top of the loss axis. Losses after an epoch are never cut off."""
    # The losses of the first steps are so high that they would flatten the rest of the curve.
    losses = sorted(y for line in lines for _, y in line.points)
    measured = [y for line in lines if line.marked for _, y in line.points]
    return max(losses[int(0.97 * (len(losses) - 1))], *measured, 1e-6)
