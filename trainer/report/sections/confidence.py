"""What the confidence is worth: reliability, coverage, and messages that fit no label."""

from __future__ import annotations

from collections.abc import Sequence

from trainer import facts, numbers
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.report.bars import confidence_chart
from trainer.report.lines import Line, line_chart
from trainer.report.records import Input, Run, Section, lacking, small
from trainer.report.svg import Chart
from trainer.statistics.figures import CoveragePoint
from trainer.statistics.metrics import share_interval


def calibration_section(run: Run) -> Section:
    """Return the reliability diagram and the calibration error."""
    title = "Can its confidence be trusted?"
    if run.evaluation is None:
        return lacking("calibration", title, Input.EVALUATION)
    charts = []
    if run.evaluation.calibration.reliability:
        charts.append(_reliability_chart(run.evaluation))
    if run.predictions:
        right = [p.confidence for p in run.predictions if p.label == p.predicted]
        wrong = [p.confidence for p in run.predictions if p.label != p.predicted]
        charts.append(confidence_chart(right, wrong))
    return Section("calibration", title, [list(facts.calibration(run.evaluation)), charts])


def coverage_section(run: Run) -> Section:
    """Return accuracy against the share that is answered without a person."""
    title = "How much can run without a person?"
    curve = [point for point in run.evaluation.coverage if point.accuracy] if run.evaluation else []
    if run.evaluation is None or not curve:
        return lacking("coverage", title, Input.EVALUATION)
    chart = _coverage_chart(curve, run.evaluation)
    return Section("coverage", title, [list(facts.review(run.evaluation)), chart])


def out_of_scope_section(run: Run) -> Section:
    """Return how well messages that fit no label are told apart."""
    title = "Messages that fit no label"
    if run.evaluation is None:
        return lacking("out_of_scope", title, Input.EVALUATION)
    if run.evaluation.out_of_scope is None:
        missing = f"{Input.EVALUATION.command} was not given messages from outside the taxonomy."
        return Section("out_of_scope", title, missing=missing)
    about = (
        "AUROC is the chance that a message from outside looks more doubtful than one from inside: "
        "0.5 is a coin, 1 is perfect."
    )
    rows = list(facts.outside_labels(run.evaluation))
    return Section("out_of_scope", title, [rows, small(about)])


def _reliability_chart(record: EvaluationRecord) -> Chart:
    bins = [group for group in record.calibration.reliability if group.count]
    bins.sort(key=lambda group: group.confidence)
    spans = [share_interval(each.accuracy, each.count, record.design_effect) for each in bins]
    lowest = min(*(each.confidence for each in bins), *(low for low, _ in spans))
    low = max(0.0, min(lowest - 0.02, 0.9))
    points = tuple((each.confidence, each.accuracy) for each in bins)
    return line_chart(
        [
            Line("the adapter", points, "s1", faint=True, spans=tuple(spans)),
            Line("exactly right", ((low, low), (1.0, 1.0)), "ideal", marked=False),
        ],
        title="Reliability",
        caption=(
            "Each dot is a group of messages of like confidence, with the 95% interval of the "
            "share that was right. Below the dashed line it was too sure."
        ),
        x_title="confidence",
        y_title="share that was right",
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
    lines = [Line("accuracy of what is answered", points, "s1")]
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
            "Reading from the right: every message answered, then only surer and surer ones; the "
            "rest would go to a person."
        ),
        x_title="share answered without a person",
        y_title="share of those that is right",
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
