"""An evaluation for people: tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_CONFUSIONS = 6


def show_evaluation(console: Console, record: Mapping[str, Any]) -> None:
    """Print ``evaluation.json`` as tables, the headline first."""
    low, high = record["accuracy_interval_95"]
    tried = "  [yellow](a try: not all messages)[/yellow]" if record["limited"] else ""
    console.print(
        f"\n[bold]{record['adapter']['name']}[/bold] {record['adapter']['digest'][:12]} on "
        f"{record['examples']} held-out messages of {record['dataset']['name']} "
        f"(opening number {record['dataset']['openings']}){tried}"
    )
    console.print(
        f"accuracy [bold]{record['accuracy']:.1%}[/bold] (95 %: {low:.1%} to {high:.1%}), "
        f"macro-F1 [bold]{record['macro_f1']:.3f}[/bold]\n"
    )
    console.print(_labels(record))
    console.print(_confusions(record))
    console.print(_engines(record))
    console.print(_facts(record))


def _labels(record: Mapping[str, Any]) -> Table:
    table = Table(title="by label", title_justify="left", box=None, pad_edge=False)
    for name in ("label", "precision", "recall", "F1", "messages"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for one in record["per_label"]:
        table.add_row(
            one["label"],
            f"{one['precision']:.1%}",
            f"{one['recall']:.1%}",
            f"{one['f1']:.3f}",
            str(one["support"]),
        )
    return table


def _confusions(record: Mapping[str, Any]) -> Table:
    table = Table(title="\nmost often mistaken", title_justify="left", box=None, pad_edge=False)
    for name in ("label", "for", "messages"):
        table.add_column(name, justify="right" if name == "messages" else "left")
    labels = record["labels"]
    cells = [
        (count, labels[at], labels[other])
        for at, row in enumerate(record["confusion"])
        for other, count in enumerate(row)
        if at != other and count
    ]
    for count, label, other in sorted(cells, key=lambda one: -one[0])[:_CONFUSIONS]:
        table.add_row(label, other, str(count))
    return table


def _engines(record: Mapping[str, Any]) -> Table:
    table = Table(title="\nengines", title_justify="left", box=None, pad_edge=False)
    for name in ("engine", "messages", "accuracy", "messages/s", "one alone: p50", "p99"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for one in record["engines"]:
        alone = one["latency_ms"]
        table.add_row(
            one["name"],
            str(one["messages"]),
            f"{one['accuracy']:.1%}",
            f"{one['messages_per_s']:.1f}",
            f"{alone['p50']:.0f} ms" if alone else "",
            f"{alone['p99']:.0f} ms" if alone else "",
        )
    return table


def _facts(record: Mapping[str, Any]) -> Table:
    table = Table(title="\nmeasured", title_justify="left", box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    calibration, review = record["calibration"], record["review"]
    outside = record["outside_labels"]
    told, mass = outside["unconstrained"], record["off_label_mass"]
    rows = [
        (
            "outside the label set",
            f"{outside['constrained']} with the constraint; "
            + (
                "not told without it"
                if told is None
                else f"{told} ({outside['unconstrained_share']:.1%}) without it"
            ),
        ),
        (
            "calibration",
            (
                f"ECE {calibration['ece']:.3f} ({calibration['ece_uncalibrated']:.3f} before), NLL "
                f"{calibration['nll']:.3f} ({calibration['nll_uncalibrated']:.3f}), temperature "
                f"{calibration['temperature']:.2f}"
            ),
        ),
        (
            "review, as the adapter says",
            (
                f"{review['share']:.1%} to a human; the rest is right "
                f"{_percent(review['accepted_accuracy'])} of the time"
            ),
        ),
        (
            f"for {review['wanted_precision']:.1%} right",
            (
                f"confidence from {review['threshold_for_wanted']:.3f} on (fitted on "
                f"validation): covers {review['coverage_at_wanted']:.1%}, "
                f"right {_percent(review['accuracy_at_wanted'])}"
            ),
        ),
        (
            "off-label mass",
            f"mean {mass['mean']:.4f}, p99 {mass['p99']:.4f}",
        ),
    ]
    if batches := record["batch_sensitivity"]:
        sizes = ", ".join(map(str, batches["sizes"]))
        rows.append(
            (
                "batches of " + sizes,
                (
                    f"log-probabilities differ by up to {batches['max_logprob_difference']:.1e}, "
                    f"{batches['labels_changed']} of {batches['messages']} labels change"
                ),
            )
        )
    if agreement := record["agreement"]:
        rows.append(
            (
                "transformers and vLLM",
                (
                    f"{agreement['labels_differ']} of {agreement['messages']} labels differ, "
                    f"confidence by up to {agreement['max_confidence_difference']:.3f} "
                    f"({agreement['tolerance']} allowed)"
                ),
            )
        )
    if scope := record["out_of_scope"]:
        rows.append(
            (
                "out of scope",
                (
                    f"{scope['review_share']:.1%} of {scope['messages']} go to review; AUROC of "
                    f"confidence {scope['auroc_confidence']:.3f}, of off-label mass "
                    f"{scope['auroc_off_label_mass']:.3f}"
                ),
            )
        )
    for name, text in rows:
        table.add_row(name, text)
    return table


def _percent(share: float | None) -> str:
    return "never (nothing is accepted)" if share is None else f"{share:.1%}"
