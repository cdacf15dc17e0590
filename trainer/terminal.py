"""What a terminal shows of the work and of its results: a progress bar, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.training import SweepRecord

_CONFUSIONS = 6


@contextmanager
def make_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done."""
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda more: progress.advance(task, more)


def show_evaluation(console: Console, record: EvaluationRecord) -> None:
    """Print ``evaluation.json`` as tables, the headline first."""
    low, high = record.accuracy_interval_95
    tried = "  [yellow](a try: not all messages)[/yellow]" if record.limited else ""
    console.print(
        f"\n[bold]{escape(record.adapter.name)}[/bold] {record.adapter.digest[:12]} on "
        f"{record.examples} held-out messages of {escape(record.dataset.name)} "
        f"(opening number {record.dataset.openings}){tried}"
    )
    console.print(
        f"accuracy [bold]{record.accuracy:.1%}[/bold] (95 %: {low:.1%} to {high:.1%}), "
        f"macro-F1 [bold]{record.macro_f1:.3f}[/bold]\n"
    )
    if proof := record.disjoint:
        console.print(
            f"of {proof.holdout_messages} held-out messages {proof.copies} are copies of the "
            f"{proof.seen_messages} that the adapter was trained or chosen on, and "
            f"{proof.near_copies} near-copies (Jaccard {proof.similarity:g}); {proof.same_ids} "
            "others have the id of one\n",
            soft_wrap=True,
        )
    console.print(_labels(record))
    console.print(_confusions(record))
    console.print(_engines(record))
    console.print(_measurements(record))


def show_duel(console: Console, record: DuelRecord) -> None:
    """Print ``duel.json`` as tables, the verdict last."""
    console.print(
        f"\n{escape(record.adapter.name)} {record.adapter.digest[:12]} against all, on "
        f"{record.examples} held-out messages of {escape(record.dataset.name)} (opening number "
        f"{record.dataset.openings})\n"
    )
    for title, table in (
        ("candidates", _duel_candidates(record)),
        ("the adapter less the other", _duel_pairs(record)),
        ("validation accuracy by training examples a label", _learning_curve(record)),
    ):
        console.print(title, style="italic")
        console.print(table, "")
    console.print(
        f"[bold]{escape(record.verdict)}[/bold]\n\n[dim]The rules: {escape(record.rules)}[/dim]",
        soft_wrap=True,
    )


def show_sweep(console: Console, record: SweepRecord) -> None:
    """Print the trials, best first."""
    table = Table(title="sweep, ranked by validation")
    for name in ("", "settings", "macro-F1", "accuracy", "loss", "seconds"):
        table.add_column(name, justify="left" if name in {"", "settings"} else "right")
    for place, at in enumerate(record.ranking, start=1):
        trial = record.trials[at]
        table.add_row(
            str(place),
            escape(" ".join(f"{key}={value}" for key, value in trial.settings.items())),
            f"{trial.validation_macro_f1:.3f}",
            f"{trial.validation_accuracy:.1%}",
            f"{trial.validation_loss:.3f}",
            f"{trial.seconds:.0f}",
        )
    console.print(table)
    if record.skipped:
        console.print(f"{record.skipped} trials did not fit within {record.budget_s:.0f} s")


def _labels(record: EvaluationRecord) -> Table:
    table = Table(title="by label", title_justify="left", box=None, pad_edge=False)
    for name in ("label", "precision", "recall", "F1", "messages"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for figures in record.per_label:
        table.add_row(
            escape(figures.label),
            f"{figures.precision:.1%}",
            f"{figures.recall:.1%}",
            f"{figures.f1:.3f}",
            str(figures.support),
        )
    return table


def _confusions(record: EvaluationRecord) -> Table:
    table = Table(title="\nmost often mistaken", title_justify="left", box=None, pad_edge=False)
    for name in ("label", "for", "messages"):
        table.add_column(name, justify="right" if name == "messages" else "left")
    cells = [
        (count, record.labels[at], record.labels[other])
        for at, row in enumerate(record.confusion)
        for other, count in enumerate(row)
        if at != other and count
    ]
    for count, label, other in sorted(cells, key=lambda cell: -cell[0])[:_CONFUSIONS]:
        table.add_row(escape(label), escape(other), str(count))
    return table


def _engines(record: EvaluationRecord) -> Table:
    table = Table(title="\nengines", title_justify="left", box=None, pad_edge=False)
    for name in ("engine", "messages", "accuracy", "messages/s", "one alone: p50", "p99"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for engine in record.engines:
        latency = engine.latency_ms
        table.add_row(
            escape(engine.name),
            str(engine.messages),
            f"{engine.accuracy:.1%}",
            f"{engine.messages_per_s:.1f}",
            f"{latency.p50:.0f} ms" if latency else "",
            f"{latency.p99:.0f} ms" if latency else "",
        )
    return table


def _measurements(record: EvaluationRecord) -> Table:
    table = Table(title="\nmeasured", title_justify="left", box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, text in (*_answers(record), *_engine_checks(record)):
        table.add_row(name, text)
    return table


def _answers(record: EvaluationRecord) -> Iterator[tuple[str, str]]:
    outside, calibration, review = record.outside_labels, record.calibration, record.review
    unconstrained = "not told without it"
    if outside.unconstrained is not None:
        share = outside.unconstrained_share
        unconstrained = f"{outside.unconstrained} ({share:.1%}) without it"
    yield (
        "outside the label set",
        f"{outside.constrained} with the constraint; {unconstrained}",
    )
    yield (
        "calibration",
        (
            f"ECE {calibration.ece:.3f} ({calibration.ece_uncalibrated:.3f} before), NLL "
            f"{calibration.nll:.3f} ({calibration.nll_uncalibrated:.3f}), temperature "
            f"{calibration.temperature:.2f}"
        ),
    )
    yield (
        "review, as the adapter says",
        (
            f"{review.share:.1%} to a human; the rest is right "
            f"{_percent(review.accepted_accuracy)} of the time"
        ),
    )
    yield (
        f"for {review.wanted_precision:.1%} right",
        (
            f"confidence from {review.threshold_for_wanted:.3f} on (fitted on "
            f"validation): covers {review.coverage_at_wanted:.1%}, "
            f"right {_percent(review.accuracy_at_wanted)}"
        ),
    )
    if review.wanted_by == "lower":
        yield (
            "what its certainty costs",
            (
                f"{review.coverage_by_point - review.coverage_at_wanted:.1%} of the messages more "
                f"to a human: the point value alone would cover {review.coverage_by_point:.1%}, "
                f"right {_percent(review.accuracy_by_point)}"
            ),
        )
    if mass := record.off_label_mass:
        yield "off-label mass", f"mean {mass.mean:.4f}, p99 {mass.p99:.4f}"
    if (score := record.out_of_scope_score) and record.head:
        method = record.head.out_of_scope
        yield f"out-of-scope score ({method})", f"mean {score.mean:.2f}, p99 {score.p99:.2f}"


def _engine_checks(record: EvaluationRecord) -> Iterator[tuple[str, str]]:
    if batches := record.batch_sensitivity:
        yield (
            f"batches of {', '.join(map(str, batches.sizes))}",
            (
                f"log-probabilities differ by up to {batches.max_logprob_difference:.1e}, "
                f"{batches.labels_changed} of {batches.messages} labels change"
            ),
        )
    if agreement := record.agreement:
        yield (
            "transformers and the worker",
            (
                f"{agreement.labels_differ} of {agreement.messages} labels differ, "
                f"confidence by up to {agreement.max_confidence_difference:.3f} "
                f"({agreement.tolerance} allowed)"
            ),
        )
    if scope := record.out_of_scope:
        by_mass = scope.auroc_off_label_mass
        other, auroc = "off-label mass", by_mass
        if by_mass is None:
            other, auroc = "the out-of-scope score", scope.auroc_out_of_scope
        yield (
            "out of scope",
            (
                f"{scope.review_share:.1%} of {scope.messages} go to review; AUROC of "
                f"confidence {scope.auroc_confidence:.3f}, of {other} {auroc or 0.0:.3f}"
            ),
        )


def _percent(share: float | None) -> str:
    return "never (nothing is accepted)" if share is None else f"{share:.1%}"


def _duel_candidates(record: DuelRecord) -> Table:
    table = _numbers_table(
        "candidate", "accuracy", "95 %", "macro-F1", "trained", "msg/s", "outside"
    )
    for figures in sorted(record.candidates, key=lambda figures: -figures.accuracy):
        low, high = figures.accuracy_interval_95
        seconds, speed, outside = (
            figures.train_seconds,
            figures.messages_per_s,
            figures.outside_labels,
        )
        table.add_row(
            escape(figures.name),
            f"{figures.accuracy:.1%}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{figures.macro_f1:.3f}",
            "" if seconds is None else f"{seconds:.0f} s",
            "" if speed is None else f"{speed:.0f}",
            "" if outside is None else str(outside),
            style="bold" if figures.kind == "adapter" else "",
        )
    return table


def _duel_pairs(record: DuelRecord) -> Table:
    table = _numbers_table(
        "candidate",
        "points",
        "95 %",
        "right\nalone",
        "p\n(Holm)",
        "at\nworst",
        "p\n(margin)",
    )
    for pair in record.pairs:
        low, high = pair.interval_95
        table.add_row(
            escape(pair.b),
            _points(pair.difference),
            f"{_points(low)} to {_points(high)}",
            f"{pair.a_only} : {pair.b_only}",
            _p_value(pair.p_holm),
            _points(-pair.worst_difference),
            _p_value(pair.non_inferiority_p),
        )
    return table


def _learning_curve(record: DuelRecord) -> Table:
    points = record.learning_curve
    sizes = sorted({point.per_label for point in points})
    table = _numbers_table("candidate", *map(str, sizes))
    for name in dict.fromkeys(point.candidate for point in points):
        accuracies = {
            point.per_label: f"{point.validation_accuracy:.1%}"
            for point in points
            if point.candidate == name
        }
        table.add_row(escape(name), *(accuracies.get(size, "") for size in sizes))
    return table


def _points(difference: float) -> str:
    """A difference of two shares in percentage points."""
    return f"{100 * difference:+.1f}"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _numbers_table(*columns: str) -> Table:
    """A table whose numbers are never cut off: where there is no room, names are broken."""
    table = Table(box=None, pad_edge=False)
    for at, name in enumerate(columns):
        table.add_column(
            name, justify="right" if at else "left", no_wrap=at > 0, overflow="fold", vertical="top"
        )
    return table
