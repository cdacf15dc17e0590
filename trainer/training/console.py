"""Terminal output of a training: a few rows, progress, epochs, and the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.artifacts.training import (
    CalibrationFigures,
    Epoch,
    OnnxFigures,
    TrainingRecord,
    ValidationFigures,
)
from trainer.commands import base_words, command
from trainer.model.prompt import Row
from trainer.statistics.thresholds import describe_promise
from worker.contract import PromptSpec

Decode = Callable[[Sequence[int]], str]

_BAR = 12  # the table fits 80 columns
_FIXED = ("dim", "dim cyan")
_MESSAGE = ("green", "bright_green")
_ANSWER = "bold black on yellow"


def choose_rows(rows: Sequence[Row], count: int) -> list[Row]:
    """Return the shortest row, the longest row, and some between."""
    order = sorted(rows, key=lambda row: (len(row.prompt), row.prompt))
    places = [round(at * (len(order) - 1) / max(1, count - 1)) for at in range(count)]
    return [order[at] for at in sorted(set(places))]


def draw_row(row: Row, spec: PromptSpec, decode: Decode, *, texts: bool) -> Text:
    """Return a row with alternating shades for its tokens: fixed parts dim, the message green, the
    learnt token black on yellow between ⟦ and ⟧. Without ``texts`` only the length of the message
    is shown."""
    text = Text()
    message_start, message_end = len(spec.prefix_ids), len(row.prompt) - len(spec.suffix_ids)
    for start, stop, shades in (
        (0, message_start, _FIXED),
        (message_start, message_end, _MESSAGE),
        (message_end, len(row.prompt), _FIXED),
    ):
        pieces = _decode_pieces(row.prompt[start:stop], decode)
        if shades is _MESSAGE and not texts:
            pieces = [f"(a message of {stop - start} tokens)"]
        for at, piece in enumerate(pieces):
            text.append(piece, style=shades[at % 2])
    assert row.answer is not None
    text.append(f"⟦{decode([row.answer])}⟧", style=_ANSWER)
    return text


def describe_epoch(epoch: Epoch) -> str:
    """Return an epoch's figures in one line."""
    finer = "" if epoch.sublabel_loss is None else f"finer {epoch.sublabel_loss:.3f}  "
    return (
        f"loss {epoch.train_loss:.3f}  {finer}"
        f"validation: loss {epoch.validation_calibrated_loss:.3f}  "
        f"accuracy {epoch.validation_accuracy:.1%}  macro-F1 {epoch.validation_macro_f1:.3f}  "
        f"{epoch.examples_per_s:.1f} examples/s  {epoch.seconds:.0f} s"
    )


def print_epochs(console: Console, epochs: Sequence[Epoch], best: int) -> None:
    """Print the epochs as a table with a bar for the validation loss, which selects the best."""
    table = Table(title="learning curve", caption="validation loss: with the fitted temperature")
    for name in ("epoch", "training loss", "validation loss", "", "accuracy", "macro-F1"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
    top = max(epoch.validation_calibrated_loss for epoch in epochs)
    for epoch in epochs:
        bar = "█" * max(1, round(_BAR * epoch.validation_calibrated_loss / top)) if top else ""
        table.add_row(
            f"{epoch.number}{' kept' if epoch.number == best else ''}",
            f"{epoch.train_loss:.3f}",
            f"{epoch.validation_calibrated_loss:.3f}",
            bar,
            f"{epoch.validation_accuracy:.1%}",
            f"{epoch.validation_macro_f1:.3f}",
        )
    console.print(table)


def print_result(console: Console, adapter: Path, record: TrainingRecord) -> None:
    """Print the validation figures and the next command."""
    found, fitted = record.validation, record.calibration
    low, high = found.accuracy_interval_95
    console.print(
        f"{_on(found)}: accuracy {found.accuracy:.1%} ({low:.1%} to {high:.1%}), macro-F1 "
        f"{found.macro_f1:.3f}; {describe_calibration(fitted)}",
        soft_wrap=True,
    )
    console.print(describe_review(record), markup=False, soft_wrap=True)
    for onnx in record.onnx or ():
        console.print(describe_onnx(onnx), markup=False, soft_wrap=True)
    console.print(
        f"{adapter}: digest {record.adapter.digest}; {record.seconds:.0f} s, peak memory "
        f"{record.peak_memory_bytes / 1e9:.1f} GB",
        markup=False,
        soft_wrap=True,
    )
    data = ("--dataset", record.dataset.directory, *base_words(record.base.directory))
    console.print(
        f"Next, its figures on the hold-out: {command('evaluate', adapter, *data)}",
        markup=False,
        soft_wrap=True,
    )


def _on(found: ValidationFigures) -> str:
    if found.folds is None:
        return f"validation, {found.examples} messages"
    return f"all {found.examples} messages, each by one of {found.folds} models without it"


def describe_calibration(fitted: CalibrationFigures) -> str:
    """Describe what the temperature does: it is chosen for the likelihood of the right labels.

    The calibration error before and after is not compared: on few messages it is mostly chance, and
    a better temperature may increase it.
    """
    effect = "lowers" if fitted.nll < fitted.nll_uncalibrated else "does not lower"
    return (
        f"temperature {fitted.temperature:.3f} {effect} the negative log-likelihood "
        f"({fitted.nll_uncalibrated:.3f} without, {fitted.nll:.3f} with it); calibration error "
        f"{fitted.ece:.3f}, perfect confidences show up to {fitted.ece_by_chance:.3f} on as many "
        "messages"
    )


def describe_onnx(found: OnnxFigures) -> str:
    """Return an ONNX file's accuracy on validation, and its difference from the trainer's float32
    model, in a line."""
    calibration = "" if found.ece is None else f", ECE {found.ece:.3f}"
    return (
        f"{found.file} ({found.bytes / 1e6:.1f} MB): accuracy {found.accuracy:.2%}{calibration}; "
        f"{found.labels_differ} labels differ from the trainer's own, confidences by at most "
        f"{found.max_confidence_difference:.3f}, golden logits by {found.max_golden_difference:.2g}"
    )


def describe_review(record: TrainingRecord) -> str:
    """Return the share that goes to review, and how much of it is due to the guarantee."""
    found, point = record.validation, record.validation.point_accepted_share
    whom = "validation" if found.folds is None else "them"
    text = f"review: {1 - found.accepted_share:.1%} of {whom} goes to review"
    if found.accepted_precision is not None:
        text += f", {found.accepted_precision:.1%} of the rest are right"
    if point == found.accepted_share:
        return text
    if found.promise is not None:
        return f"{text}: {describe_promise(found.promise, found.examples)}"
    return (
        f'{text} ({1 - point:.1%} with review_precision_by = "point", which keeps the promised '
        "precision half of the time)"
    )


def _decode_pieces(ids: Sequence[int], decode: Decode) -> list[str]:
    """Decode token by token; tokens that are parts of one character are decoded together."""
    pieces: list[str] = []
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        piece = decode(waiting)
        if "\ufffd" not in piece:
            pieces.append(piece)
            waiting = []
    return [*pieces, decode(waiting)] if waiting else pieces
