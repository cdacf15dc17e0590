"""How the adapter learned: loss by step, scores by epoch, and what more data would bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainer import facts, numbers
from trainer.artifacts.training import Epoch, Step
from trainer.report.lines import STYLES, Line, Mark, averaged, line_chart, smoothed
from trainer.report.records import Input, Run, Section, lacking, small
from trainer.report.svg import Chart


def curves_section(run: Run) -> Section:
    """Return the learning curves of the training."""
    title = "How it learned"
    record, epochs = run.training, run.training.epochs
    if not epochs:
        return lacking("curves", title, Input.TRAINING)
    told = f"Epoch {record.best_epoch} did best on validation"
    told += f"; the weights kept are those of {record.kept}." if record.kept else "."
    if record.stopped_early:
        told += " The training stopped early, because validation no longer improved."
    columns = ("epoch", "training loss", "validation loss", "after the temperature", "accuracy",
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
    charts = [_loss(run), _scores(run), *_steps(run)]
    return Section("curves", title, [told, charts, facts.Table(columns, rows)])


def data_size_section(run: Run) -> Section:
    """Return accuracy over the number of training examples, of every candidate that has it."""
    title = "Would more data help?"
    curves = _by_candidate(run)
    if not curves:
        missing = (
            f"Neither {Input.DUEL.path} nor {Input.SWEEP.path} holds a learning curve over data "
            f"size; {Input.DUEL.command} measures one, {Input.SWEEP.command} does for the adapter."
        )
        return Section("data_size", title, missing=missing)
    sizes = sorted({x for curve in curves.values() for x, _ in curve})
    chart = line_chart(
        [
            Line(name, tuple(curve), STYLES[at % len(STYLES)])
            for at, (name, curve) in enumerate(curves.items())
        ],
        title="Accuracy by number of training examples",
        caption="Validation accuracy of models trained on this many examples of each label.",
        x_title="examples a label",
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
                f"{numbers.count(curve[-2][0])} to {numbers.count(curve[-1][0])} examples a label"
            ),
        )
        for name, curve in curves.items()
        if len(curve) > 1
    ]
    about = (
        "A line that still rises at its end says that more examples will help; a flat one that "
        "they will not."
    )
    return Section("data_size", title, [gains, small(about), chart])


def sweep_section(run: Run) -> Section:
    """Return the settings that were tried."""
    title = "Settings tried"
    if run.sweep is None or not run.sweep.trials:
        return lacking("sweep", title, Input.SWEEP)
    within = f" within {numbers.duration(run.sweep.budget_s)}" if run.sweep.budget_s else ""
    told = f"{len(run.sweep.trials)} settings{within}; the best by validation is marked."
    return Section("sweep", title, [told, facts.trials(run.sweep)])


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
    lines.append(Line("validation, after the temperature", _points(ends, calibrated), "s3"))
    highest = max(y for line in lines for _, y in line.points)
    top = _crop(lines)
    caption = (
        "Nats a label. Validation is measured after each epoch, before and after the temperature "
        "that its confidence asks for; by the latter an epoch is kept."
    )
    if highest > top:
        caption += f" Losses up to {numbers.decimal(highest)} are cut off."
    best = run.training.best_epoch
    return line_chart(
        [replace(line, points=tuple((x, y) for x, y in line.points if y <= top)) for line in lines],
        title="Loss",
        caption=caption,
        x_title="step" if by_step else "epoch",
        y_title="loss",
        write_y=numbers.decimal,
        y_range=(0.0, top * 1.04),
        marks=[Mark(ends[[epoch.number for epoch in epochs].index(best)], f"best: epoch {best}")],
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
        caption="Share right, and the mean F1 over the labels, after each epoch.",
        x_title="epoch",
        y_title="score",
        write_y=numbers.percent,
        percent=True,
        marks=[Mark(run.training.best_epoch, "best")],
    )


def _steps(run: Run) -> Iterator[Chart]:
    rates = [(float(step.step), step.learning_rate) for step in run.steps if step.learning_rate]
    norms = [(float(step.step), step.gradient_norm) for step in run.steps if step.gradient_norm]
    for points, title, caption, unit in (
        (rates, "Learning rate", "Warm-up, then decay, as the recipe says.", "rate"),
        (norms, "Gradient norm", "Before clipping; spikes are hard batches.", "norm"),
    ):
        if len(points) > 1:
            shown = averaged(points)
            yield line_chart(
                [Line(title.lower(), shown, "s1", marked=False)],
                title=title,
                caption=caption,
                x_title="step",
                y_title=unit,
                write_y=numbers.significant,
                y_range=(0.0, max(y for _, y in shown) * 1.05),
            )


def _epoch_ends(steps: Sequence[Step], epochs: Sequence[Epoch]) -> list[float]:
    last = {step.epoch: float(step.step) for step in steps}
    return [last.get(epoch.number, float(epoch.number)) for epoch in epochs]


def _points(at: Sequence[float], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(at, values, strict=True))


def _crop(lines: Sequence[Line]) -> float:
    """Return the top of the loss axis: the first steps, which are far off, must not flatten the
    rest. Losses after an epoch are never cut off."""
    losses = sorted(y for line in lines for _, y in line.points)
    measured = [y for line in lines if line.marked for _, y in line.points]
    return max(losses[int(0.97 * (len(losses) - 1))], *measured, 1e-6)


def _by_candidate(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the duel's curves, and that of a sweep over sizes: its best trial of each."""
    found = facts.learning_curves(run.duel)
    best: dict[int, float] = {}
    for trial in run.sweep.trials if run.sweep else ():
        if trial.per_label:
            accuracy = max(trial.validation_accuracy, best.get(trial.per_label, 0.0))
            best[trial.per_label] = accuracy
    if len(best) > 1:
        found["adapter (best of the sweep)"] = sorted(best.items())
    return found
