"""An evaluation for people: tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from trainer.artifacts.evaluation import EvaluationRecord

_CONFUSIONS = 6


def show_evaluation(console: Console, record: EvaluationRecord) -> None:
    """Print ``evaluation.json`` as tables, the headline first."""
    low, high = record.accuracy_interval_95
    tried = "  [yellow](a try: not all messages)[/yellow]" if record.limited else ""
    console.print(
        f"\n[bold]{record.adapter.name}[/bold] {record.adapter.digest[:12]} on "
        f"{record.examples} held-out messages of {record.dataset.name} "
        f"(opening number {record.dataset.openings}){tried}"
    )
    console.print(
        f"accuracy [bold]{record.accuracy:.1%}[/bold] (95 %: {low:.1%} to {high:.1%}), "
        f"macro-F1 [bold]{record.macro_f1:.3f}[/bold]\n"
    )
    console.print(_labels(record))
    console.print(_confusions(record))
    console.print(_engines(record))
    console.print(_measurements(record))


def _labels(record: EvaluationRecord) -> Table:
    table = Table(title="by label", title_justify="left", box=None, pad_edge=False)
    for name in ("label", "precision", "recall", "F1", "messages"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for figures in record.per_label:
        table.add_row(
            figures.label,
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
        table.add_row(label, other, str(count))
    return table


def _engines(record: EvaluationRecord) -> Table:
    table = Table(title="\nengines", title_justify="left", box=None, pad_edge=False)
    for name in ("engine", "messages", "accuracy", "messages/s", "one alone: p50", "p99"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for engine in record.engines:
        latency = engine.latency_ms
        table.add_row(
            engine.name,
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
    if mass := record.off_label_mass:
        yield "off-label mass", f"mean {mass.mean:.4f}, p99 {mass.p99:.4f}"


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
            "transformers and vLLM",
            (
                f"{agreement.labels_differ} of {agreement.messages} labels differ, "
                f"confidence by up to {agreement.max_confidence_difference:.3f} "
                f"({agreement.tolerance} allowed)"
            ),
        )
    if scope := record.out_of_scope:
        yield (
            "out of scope",
            (
                f"{scope.review_share:.1%} of {scope.messages} go to review; AUROC of "
                f"confidence {scope.auroc_confidence:.3f}, of off-label mass "
                f"{scope.auroc_off_label_mass:.3f}"
            ),
        )


def _percent(share: float | None) -> str:
    return "never (nothing is accepted)" if share is None else f"{share:.1%}"
