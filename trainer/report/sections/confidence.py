"""What the confidence is worth: reliability, coverage, and messages that fit no label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer.artifacts.evaluation import ReviewFigures
from trainer.report import numbers, svg
from trainer.report.bars import confidence_chart
from trainer.report.lines import Bin, Line, line_chart, reliability_chart
from trainer.report.records import Input, Run, Section, lacking
from trainer.report.svg import Axis, Chart, Frame, Svg
from trainer.statistics.figures import CoveragePoint, ReliabilityBin
from trainer.statistics.metrics import wilson


def calibration_section(run: Run) -> Section:
    """Return the reliability diagram and the calibration error."""
    title = "Can its confidence be trusted?"
    if run.evaluation is None:
        return lacking("calibration", title, Input.EVALUATION)
    found, effect = run.evaluation.calibration, run.evaluation.design_effect
    charts = []
    if found.reliability:
        charts.append(
            reliability_chart(
                [_bin(group, effect) for group in found.reliability if group.count],
                caption=(
                    "Each dot is a group of messages of like confidence, with the 95% interval of "
                    "the share that was right. Below the dashed line it was too sure."
                ),
            )
        )
    if run.predictions:
        right = [p.confidence for p in run.predictions if p.label == p.predicted]
        wrong = [p.confidence for p in run.predictions if p.label != p.predicted]
        charts.append(confidence_chart(right, wrong))
    return Section(
        "calibration",
        title,
        {
            "charts": charts,
            "temperature": numbers.decimal(found.temperature),
            "ece": numbers.percent(found.ece),
            "ece_before": numbers.percent(found.ece_uncalibrated),
            "nll": numbers.decimal(found.nll),
            "nll_before": numbers.decimal(found.nll_uncalibrated),
        },
    )


def coverage_section(run: Run) -> Section:
    """Return accuracy against the share that is answered without a person."""
    title = "How much can run without a person?"
    points = run.evaluation.coverage if run.evaluation else ()
    curve = [point for point in points if point.accuracy]
    if run.evaluation is None or not curve:
        return lacking("coverage", title, Input.EVALUATION)
    review = run.evaluation.review
    return Section(
        "coverage",
        title,
        {
            "chart": _coverage_chart(curve, review),
            "share": numbers.percent(review.share),
            "accepted": numbers.percent(review.accepted_accuracy),
            "below": numbers.percent(review.confidence_below),
            "mass_above": numbers.percent(review.off_label_mass_above),
            "wanted": numbers.percent(review.wanted_precision),
            "wanted_threshold": numbers.percent(review.threshold_for_wanted),
            "wanted_coverage": numbers.percent(review.coverage_at_wanted),
            "wanted_accuracy": numbers.percent(review.accuracy_at_wanted),
            "by_lower": review.wanted_by == "lower",
            "point_coverage": numbers.percent(review.coverage_by_point),
            "point_accuracy": numbers.percent(review.accuracy_by_point),
        },
    )


def out_of_scope_section(run: Run) -> Section:
    """Return how well messages that fit no label are told apart."""
    title = "Messages that fit no label"
    if run.evaluation is None:
        return lacking("out_of_scope", title, Input.EVALUATION)
    found, mass = run.evaluation.out_of_scope, run.evaluation.off_label_mass
    if found is None:
        missing = f"{Input.EVALUATION.command} was not given messages from outside the taxonomy."
        return Section("out_of_scope", title, missing=missing)
    shown: list[tuple[str, float]] = []
    if mass is not None:
        shown = [("mean", mass.mean), ("median", mass.p50), ("99th percentile", mass.p99)]
    return Section(
        "out_of_scope",
        title,
        {
            "messages": numbers.count(found.messages),
            "review": numbers.percent(found.review_share),
            "by_confidence": numbers.decimal(found.auroc_confidence),
            "by_mass": numbers.decimal(found.auroc_off_label_mass),
            "by_score": numbers.decimal(found.auroc_out_of_scope),
            "mass": [(name, numbers.significant(value)) for name, value in shown],
        },
    )


def _bin(group: ReliabilityBin, effect: float) -> Bin:
    low, high = wilson(group.accuracy * group.count / effect, group.count / effect)
    return Bin(group.confidence, group.accuracy, low, high, group.count)


def _coverage_chart(curve: Sequence[CoveragePoint], review: ReviewFigures) -> Chart:
    points = tuple(sorted((point.coverage, point.accuracy or 0.0) for point in curve))
    named = []
    if review.accepted_accuracy is not None:
        named.append(("as deployed", 1 - review.share, review.accepted_accuracy, "s2"))
    if review.coverage_at_wanted and review.accuracy_at_wanted:
        name = f"threshold for {numbers.percent(review.wanted_precision)}"
        named.append((name, review.coverage_at_wanted, review.accuracy_at_wanted, "s3"))
    everything = [*(y for _, y in points), *(y for _, _, y, _ in named)]
    low = max(0.0, min(everything) - 0.01)
    return line_chart(
        [Line("accuracy of what is answered", points, "s1")],
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
        y_range=(low, 1.0),
        legend=[("dot " + style, _point(name, x, y)) for name, x, y, style in named],
        extra=_named(named),
    )


def _named(
    points: list[tuple[str, float, float, str]],
) -> Callable[[Frame, Axis, Axis], Svg]:
    def draw(frame: Frame, x: Axis, y: Axis) -> Svg:
        parts = []
        for name, coverage, accuracy, style in points:
            px, py = x.scale(coverage), y.scale(accuracy)
            parts.append(
                svg.element(
                    "g",
                    svg.tooltip(_point(name, coverage, accuracy)),
                    svg.element("line", class_=f"mark {style}", x1=px, x2=px, y1=py,
                                y2=frame.height - frame.bottom),
                    svg.element("circle", cx=px, cy=py, r=6.5, class_=f"dot {style}"),
                )
            )  # fmt: skip
        return svg.group(*parts)

    return draw


def _point(name: str, coverage: float, accuracy: float) -> str:
    return f"{name}: {numbers.percent(coverage)} answered, {numbers.percent(accuracy)} right"
