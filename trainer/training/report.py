"""A training's figures: as a record for machines and as tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.evaluation.calibration import Calibrated
from trainer.evaluation.decide import Evaluation
from trainer.training.loop import Epoch
from trainer.evaluation.metrics import Figures, LabelFigures
from worker.contract.digest import write_atomically


def summarize(
    *,
    epochs: Sequence[Epoch],
    best: int,
    validation: Figures,
    calibrated: Calibrated,
    holdout: Evaluation,
    baseline: Figures,
    seconds: float,
) -> dict[str, Any]:
    """Return the main figures, for the manifest. Shares are 0 to 1, losses in nats."""
    return {
        "holdout": {
            "examples": holdout.figures.examples,
            "accuracy": holdout.figures.accuracy,
            "accuracy_interval_95": list(holdout.figures.interval),
            "macro_f1": holdout.figures.macro_f1,
            "ece": holdout.ece,
            "mean_off_label_mass": holdout.mean_off_label_mass,
            "review_share": holdout.review_share,
            "accepted_accuracy": holdout.accepted_accuracy,
        },
        "holdout_baseline": {
            "method": "TF-IDF (words 1-2, characters 2-5) and logistic regression",
            "accuracy": baseline.accuracy,
            "accuracy_interval_95": list(baseline.interval),
            "macro_f1": baseline.macro_f1,
        },
        "validation": {
            "examples": validation.examples,
            "accuracy": validation.accuracy,
            "macro_f1": validation.macro_f1,
            "nll_uncalibrated": calibrated.raw_nll,
            "ece_uncalibrated": calibrated.raw_ece,
            "accepted_share": calibrated.accepted_share,
            "accepted_precision": calibrated.accepted_precision,
        },
        "training": {
            "epochs": len(epochs),
            "best_epoch": best,
            "seconds": round(seconds, 1),
            "tokens_per_s": round(sum(one.tokens_per_s for one in epochs) / len(epochs), 1),
        },
    }


def detail(
    labels: Sequence[str], epochs: Sequence[Epoch], holdout: Evaluation, baseline: Figures
) -> dict[str, Any]:
    """Return what ``metrics.json`` holds besides the summary."""
    return {
        "labels": list(labels),
        "epochs": [asdict(one) for one in epochs],
        "holdout_per_label": [asdict(one) for one in holdout.figures.per_label],
        "holdout_confusion": [list(row) for row in holdout.figures.confusion],
        "holdout_baseline_per_label": [asdict(one) for one in baseline.per_label],
        "holdout_baseline_confusion": [list(row) for row in baseline.confusion],
    }


def write_run(
    directory: Path, metrics: dict[str, Any], predictions: Sequence[dict[str, object]]
) -> None:
    """Write ``predictions.jsonl``, then ``metrics.json``, into the run folder."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in predictions)
    write_atomically(directory / "predictions.jsonl", lines.encode("utf-8"))
    text = json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(directory / "metrics.json", text.encode("utf-8") + b"\n")


def print_report(
    console: Console, holdout: Evaluation, baseline: Figures, calibrated: Calibrated
) -> None:
    """Print the hold-out's figures beside the baseline's, and what was fitted on validation."""
    table = Table(title=f"hold-out, {holdout.figures.examples} messages never trained on")
    for column in ("", "adapter", "TF-IDF baseline"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("accuracy", _share(holdout.figures), _share(baseline))
    table.add_row("macro-F1", f"{holdout.figures.macro_f1:.3f}", f"{baseline.macro_f1:.3f}")
    table.add_row("ECE", f"{holdout.ece:.3f}", "")
    table.add_row("off-label mass", f"{holdout.mean_off_label_mass:.4f}", "")
    table.add_row("to review", f"{holdout.review_share:.1%}", "")
    if holdout.accepted_accuracy is not None:
        table.add_row("accuracy of the rest", f"{holdout.accepted_accuracy:.1%}", "")
    console.print(table)

    labels = Table(title="hold-out by label: precision / recall / F1")
    for column in ("label", "adapter", "TF-IDF baseline", "messages"):
        labels.add_column(column, justify="left" if column == "label" else "right")
    for mine, other in zip(holdout.figures.per_label, baseline.per_label, strict=True):
        labels.add_row(mine.label, _label(mine), _label(other), str(mine.support))
    console.print(labels)

    fitted, limits = calibrated.calibration, calibrated.thresholds
    console.print(
        f"temperature {fitted.temperature:.3f} from {fitted.examples} validation messages "
        f"(NLL {calibrated.raw_nll:.3f} to {fitted.nll:.3f}, ECE {calibrated.raw_ece:.3f} to "
        f"{fitted.ece:.3f}); review below {limits.review_confidence:.3f} confidence or above "
        f"{limits.review_off_label_mass:.2f} off-label mass",
        highlight=False,
        soft_wrap=True,
    )


def _share(figures: Figures) -> str:
    low, high = figures.interval
    return f"{figures.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _label(one: LabelFigures) -> str:
    return f"{one.precision:.2f} / {one.recall:.2f} / {one.f1:.2f}"
