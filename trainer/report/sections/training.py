"""How the adapter learned: loss by step, scores by epoch, and what more data would bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.artifacts.training import Epoch, Step
from trainer.report import numbers
from trainer.report.lines import STYLES, Line, Mark, averaged, line_chart, smoothed
from trainer.report.records import Input, Run, Section, lacking
from trainer.report.svg import Chart


def curves_section(run: Run) -> Section:
    """Return the learning curves of the training."""
    title = "How it learned"
    epochs = run.training.epochs
    if not epochs:
        return lacking("curves", title, Input.TRAINING)
    charts = [*_loss(run), *_scores(run), *_steps(run)]
    return Section(
        "curves",
        title,
        {
            "charts": charts,
            "epochs": [
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
            ],
            "best": run.training.best_epoch,
            "kept": run.training.kept,
            "stopped_early": run.training.stopped_early,
        },
    )


def data_size_section(run: Run) -> Section:
    """Return accuracy over the number of training examples, of every candidate that has it."""
    title = "Would more data help?"
    curves_of = _by_candidate(run)
    if not curves_of:
        missing = (
            f"Neither {Input.DUEL.path} nor {Input.SWEEP.path} holds a learning curve over data "
            f"size; {Input.DUEL.command} measures one, {Input.SWEEP.command} does for the adapter."
        )
        return Section("data_size", title, missing=missing)
    lines = [
        Line(name, tuple(points), STYLES[at % len(STYLES)])
        for at, (name, points) in enumerate(curves_of)
    ]
    sizes = sorted({x for _, points in curves_of for x, _ in points})
    rows = tuple(
        (name, *(numbers.percent(dict(points).get(size)) for size in sizes))
        for name, points in curves_of
    )
    chart = line_chart(
        lines,
        title="Accuracy by number of training examples",
        caption="Validation accuracy of models trained on this many examples of each label.",
        x_title="examples a label",
        y_title="validation accuracy",
        table=(("candidate", *(numbers.count(size) for size in sizes)), rows),
        write_y=numbers.percent,
        percent=True,
        whole_x=True,
        logarithmic=len(sizes) > 1 and sizes[-1] / sizes[0] >= 4,
    )
    return Section(
        "data_size", title, {"chart": chart, "reading": [_last_step(*curve) for curve in curves_of]}
    )


def sweep_section(run: Run) -> Section:
    """Return the settings that were tried."""
    title = "Settings tried"
    if run.sweep is None or not run.sweep.trials:
        return lacking("sweep", title, Input.SWEEP)
    names = sorted({name for trial in run.sweep.trials for name in trial.settings})
    rows = [
        (
            at == run.sweep.best,
            (
                *(trial.settings.get(name, numbers.NONE) for name in names),
                numbers.decimal(trial.validation_loss),
                numbers.percent(trial.validation_accuracy),
                numbers.decimal(trial.validation_macro_f1),
                numbers.duration(trial.seconds),
            ),
        )
        for at, trial in enumerate(run.sweep.trials)
    ]
    return Section(
        "sweep",
        title,
        {"names": names, "rows": rows, "budget": numbers.duration(run.sweep.budget_s)},
    )


def _loss(run: Run) -> list[Chart]:
    epochs = run.training.epochs
    rows = tuple(
        (
            str(epoch.number),
            numbers.decimal(epoch.train_loss),
            numbers.decimal(epoch.validation_loss),
            numbers.decimal(epoch.validation_calibrated_loss),
        )
        for epoch in epochs
    )
    ends = _epoch_ends(run.steps, epochs)
    lines = []
    if len(run.steps) > 1:
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
    return [
        line_chart(
            [_below(line, top) for line in lines],
            title="Loss",
            caption=caption,
            x_title="step" if len(run.steps) > 1 else "epoch",
            y_title="loss",
            table=(("epoch", "training loss", "validation loss", "after the temperature"), rows),
            write_y=numbers.decimal,
            whole_x=True,
            y_range=(0.0, top * 1.04),
            marks=[_best_mark(run, ends)],
        )
    ]


def _scores(run: Run) -> list[Chart]:
    epochs = run.training.epochs
    at = [float(epoch.number) for epoch in epochs]
    accuracy = [epoch.validation_accuracy for epoch in epochs]
    macro_f1 = [epoch.validation_macro_f1 for epoch in epochs]
    return [
        line_chart(
            [
                Line("accuracy", _points(at, accuracy), "s1"),
                Line("macro-F1", _points(at, macro_f1), "s3"),
            ],
            title="Validation scores",
            caption="Share right, and the mean F1 over the labels, after each epoch.",
            x_title="epoch",
            y_title="score",
            table=(
                ("epoch", "accuracy", "macro-F1"),
                tuple(
                    (
                        str(epoch.number),
                        numbers.percent(epoch.validation_accuracy),
                        numbers.decimal(epoch.validation_macro_f1),
                    )
                    for epoch in epochs
                ),
            ),
            write_y=numbers.percent,
            percent=True,
            whole_x=True,
            marks=[Mark(run.training.best_epoch, "best")],
        )
    ]


def _steps(run: Run) -> list[Chart]:
    charts = []
    rates = [(float(step.step), step.learning_rate) for step in run.steps if step.learning_rate]
    norms = [(float(step.step), step.gradient_norm) for step in run.steps if step.gradient_norm]
    for points, title, caption, unit in (
        (rates, "Learning rate", "Warm-up, then decay, as the recipe says.", "rate"),
        (norms, "Gradient norm", "Before clipping; spikes are hard batches.", "norm"),
    ):
        if len(points) < 2:
            continue
        shown = averaged(points)
        some = shown[:: -(-len(shown) // 12)]
        charts.append(
            line_chart(
                [Line(title.lower(), shown, "s1", marked=False)],
                title=title,
                caption=caption,
                x_title="step",
                y_title=unit,
                table=(
                    ("step", unit),
                    tuple((numbers.count(x), numbers.significant(y)) for x, y in some),
                ),
                write_y=numbers.significant,
                whole_x=True,
                y_range=(0.0, max(y for _, y in shown) * 1.05),
            )
        )
    return charts


def _epoch_ends(steps: Sequence[Step], epochs: Sequence[Epoch]) -> list[float]:
    last = {step.epoch: float(step.step) for step in steps}
    return [last.get(epoch.number, float(epoch.number)) for epoch in epochs]


def _points(at: Sequence[float], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(at, values, strict=True))


def _best_mark(run: Run, ends: Sequence[float]) -> Mark:
    best = run.training.best_epoch
    at = [epoch.number for epoch in run.training.epochs].index(best)
    return Mark(ends[at], f"best: epoch {best}")


def _crop(lines: Sequence[Line]) -> float:
    """Return the top of the loss axis: the first steps, which are far off, must not flatten the
    rest. Losses after an epoch are never cut off."""
    losses = sorted(y for line in lines for _, y in line.points)
    measured = [y for line in lines if line.marked for _, y in line.points]
    return max(losses[int(0.97 * (len(losses) - 1))], *measured, 1e-6)


def _below(line: Line, top: float) -> Line:
    points = tuple((x, y) for x, y in line.points if y <= top)
    return Line(line.name, points, line.style, marked=line.marked, faint=line.faint)


def _by_candidate(run: Run) -> list[tuple[str, list[tuple[float, float]]]]:
    found: dict[str, dict[float, float]] = {}
    for point in run.duel.learning_curve if run.duel else ():
        curve = found.setdefault(point.candidate, {})
        curve[float(point.per_label)] = point.validation_accuracy
    trials = run.sweep.trials if run.sweep else ()
    if len({trial.per_label for trial in trials if trial.per_label}) > 1:
        best: dict[float, float] = {}
        for trial in trials:
            if trial.per_label:
                size = float(trial.per_label)
                best[size] = max(trial.validation_accuracy, best.get(size, 0.0))
        found["adapter (best of the sweep)"] = best
    return [(name, sorted(points.items())) for name, points in found.items()]


def _last_step(name: str, points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if len(points) < 2:
        return {"name": name, "gain": None}
    (before, low), (after, high) = points[-2:]
    return {
        "name": name,
        "gain": numbers.points(high - low),
        "before": numbers.count(before),
        "after": numbers.count(after),
    }
