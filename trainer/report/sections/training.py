"""How the adapter learned: loss by step, scores by epoch, and what more data would bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.report import numbers
from trainer.report.charts.lines import STYLES, Line, Mark, averaged, line_chart, smoothed
from trainer.report.charts.svg import Chart
from trainer.report.read import DUEL, SWEEP, TRAINING, Record, Run
from trainer.report.section import Section, lacking


def curves(run: Run) -> Section:
    """Return the learning curves of the training."""
    title = "How it learned"
    epochs = run.training["epochs"]
    if not epochs:
        return lacking("curves", title, TRAINING)
    charts = [*_loss(run), *_scores(run), *_steps(run)]
    return Section(
        "curves",
        title,
        {
            "charts": charts,
            "epochs": [
                (
                    str(one["number"]),
                    numbers.decimal(one["train_loss"]),
                    numbers.decimal(one["validation_loss"]),
                    numbers.percent(one["validation_accuracy"]),
                    numbers.decimal(one["validation_macro_f1"]),
                    numbers.duration(one.get("seconds")),
                    numbers.significant(one.get("tokens_per_s")),
                )
                for one in epochs
            ],
            "best": run.training["best_epoch"],
            "kept": run.training.get("kept"),
            "stopped_early": run.training.get("stopped_early", False),
        },
    )


def data_size(run: Run) -> Section:
    """Return accuracy over the number of training examples, of every candidate that has it."""
    title = "Would more data help?"
    curves_of = _by_candidate(run)
    if not curves_of:
        missing = (
            f"Neither {DUEL.path} nor {SWEEP.path} holds a learning curve over data size; "
            f"{DUEL.command} measures one, {SWEEP.command} does for the adapter."
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
        caption="Validation accuracy of models trained on so many examples of each label.",
        x_title="examples a label",
        y_title="validation accuracy",
        table=(("candidate", *(numbers.count(size) for size in sizes)), rows),
        write_y=numbers.percent,
        percent=True,
        whole_x=True,
        logarithmic=len(sizes) > 1 and sizes[-1] / sizes[0] >= 4,
    )
    return Section(
        "data_size", title, {"chart": chart, "reading": [_last_step(*one) for one in curves_of]}
    )


def sweep(run: Run) -> Section:
    """Return the settings that were tried."""
    title = "Settings tried"
    if run.sweep is None or not run.sweep["trials"]:
        return lacking("sweep", title, SWEEP)
    trials = run.sweep["trials"]
    names = sorted({name for trial in trials for name in trial["settings"]})
    rows = [
        (
            at == run.sweep.get("best"),
            (
                *(str(trial["settings"].get(name, numbers.NONE)) for name in names),
                numbers.decimal(trial.get("validation_loss")),
                numbers.percent(trial.get("validation_accuracy")),
                numbers.decimal(trial.get("validation_macro_f1")),
                numbers.duration(trial.get("seconds")),
            ),
        )
        for at, trial in enumerate(trials)
    ]
    return Section(
        "sweep",
        title,
        {"names": names, "rows": rows, "budget": numbers.duration(run.sweep.get("budget_s"))},
    )


def _loss(run: Run) -> list[Chart]:
    epochs = run.training["epochs"]
    rows = tuple(
        (
            str(one["number"]),
            numbers.decimal(one["train_loss"]),
            numbers.decimal(one["validation_loss"]),
        )
        for one in epochs
    )
    ends = _epoch_ends(run.steps, epochs)
    lines = []
    if len(run.steps) > 1:
        points = [(float(one["step"]), float(one["loss"])) for one in run.steps]
        window = max(3, len(points) // 25)
        lines = [
            Line("training, each step", averaged(points), "s5", marked=False, faint=True),
            Line(f"training, mean of {window} steps", averaged(smoothed(points, window)), "s1",
                 marked=False),
        ]  # fmt: skip
    else:
        lines = [Line("training", _points(ends, epochs, "train_loss"), "s1")]
    lines.append(Line("validation", _points(ends, epochs, "validation_loss"), "s2"))
    highest = max(y for line in lines for _, y in line.points)
    top = _crop(lines)
    caption = "Nats a label. Validation is measured after each epoch."
    if highest > top:
        caption += f" Losses up to {numbers.decimal(highest)} are cut off."
    return [
        line_chart(
            [_below(line, top) for line in lines],
            title="Loss",
            caption=caption,
            x_title="step" if len(run.steps) > 1 else "epoch",
            y_title="loss",
            table=(("epoch", "training loss", "validation loss"), rows),
            write_y=numbers.decimal,
            whole_x=True,
            y_range=(0.0, top * 1.04),
            marks=[_best_mark(run, ends)],
        )
    ]


def _scores(run: Run) -> list[Chart]:
    epochs = run.training["epochs"]
    numbers_of = [float(one["number"]) for one in epochs]
    return [
        line_chart(
            [
                Line("accuracy", _points(numbers_of, epochs, "validation_accuracy"), "s1"),
                Line("macro-F1", _points(numbers_of, epochs, "validation_macro_f1"), "s3"),
            ],
            title="Validation scores",
            caption="Share right, and the mean F1 over the labels, after each epoch.",
            x_title="epoch",
            y_title="score",
            table=(
                ("epoch", "accuracy", "macro-F1"),
                tuple(
                    (
                        str(one["number"]),
                        numbers.percent(one["validation_accuracy"]),
                        numbers.decimal(one["validation_macro_f1"]),
                    )
                    for one in epochs
                ),
            ),
            write_y=numbers.percent,
            percent=True,
            whole_x=True,
            marks=[Mark(run.training["best_epoch"], "best")],
        )
    ]


def _steps(run: Run) -> list[Chart]:
    charts = []
    for key, title, caption, unit in (
        ("learning_rate", "Learning rate", "Warm-up, then decay, as the recipe says.", "rate"),
        ("gradient_norm", "Gradient norm", "Before clipping; spikes are hard batches.", "norm"),
    ):
        points = [(float(one["step"]), float(one[key])) for one in run.steps if one.get(key)]
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


def _epoch_ends(steps: Sequence[Record], epochs: Sequence[Record]) -> list[float]:
    last = {one["epoch"]: float(one["step"]) for one in steps}
    return [last.get(one["number"], float(one["number"])) for one in epochs]


def _points(
    at: Sequence[float], epochs: Sequence[Record], key: str
) -> tuple[tuple[float, float], ...]:
    return tuple((x, float(one[key])) for x, one in zip(at, epochs, strict=True))


def _best_mark(run: Run, ends: Sequence[float]) -> Mark:
    best = run.training["best_epoch"]
    at = [one["number"] for one in run.training["epochs"]].index(best)
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
    for one in (run.duel or {}).get("learning_curve") or ():
        found.setdefault(one["candidate"], {})[float(one["per_label"])] = one["validation_accuracy"]
    sized = [one for one in (run.sweep or {}).get("trials", ()) if one.get("per_label")]
    if len({one["per_label"] for one in sized}) > 1:
        best: dict[float, float] = {}
        for one in sized:
            size, score = float(one["per_label"]), float(one["validation_accuracy"])
            best[size] = max(score, best.get(size, 0.0))
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
