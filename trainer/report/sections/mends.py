"""What to do about each criterion of the gate that is not met."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from trainer import numbers
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.training import TRAINING
from trainer.report.judged import Judged
from trainer.report.records import Run
from trainer.report.steps import (
    BAD,
    NextStep,
    check_command,
    command,
    free_folder,
    larger_share,
)
from trainer.statistics.metrics import wilson
from trainer.store.verdict import Criterion

_MOST_MESSAGES = 100_000
_MOST_HELD_OUT = 0.4


def mend_criteria(run: Run, evaluate: str) -> Iterator[NextStep]:
    """Yield a step for each row of the gate that fails, rows of one kind as one. ``evaluate`` is
    the command that evaluates the run."""
    judged, evaluation = run.gate, run.evaluation
    if judged is None or evaluation is None:
        return
    failed = {row.name: row for row in judged.criteria if not row.passed}
    yield from _evidence(run, failed, evaluate)
    yield from _accuracy(run, judged, evaluation, failed)
    yield from _labels(run, evaluation, failed)
    yield from _answers(failed, evaluate)
    yield from _current(judged, failed)


def _evidence(run: Run, failed: dict[str, Criterion], evaluate: str) -> Iterator[NextStep]:
    again = [failed[name] for name in ("adapter evaluated", "hold-out", "predictions")
             if name in failed]  # fmt: skip
    if again:
        told = "; ".join(f"{row.name}: {row.found}, wanted: {row.wanted}" for row in again)
        yield NextStep(BAD, "Evaluate it again, on the whole hold-out", f"{told}.", (evaluate,))
    if row := failed.get("hold-out unseen"):
        proven = f"{evaluate} --trained-on {shlex.quote(run.training.dataset.directory)}"
        why = f"It was measured on {row.found}."
        yield NextStep(BAD, "Show that it has not seen the hold-out", why, (proven,))


def _accuracy(
    run: Run, judged: Judged, evaluation: EvaluationRecord, failed: dict[str, Criterion]
) -> Iterator[NextStep]:
    rules = judged.rules
    low = next((row for name, row in failed.items() if name.startswith("accuracy")), None)
    if low is not None and evaluation.accuracy > rules.accuracy:
        needed = _messages_to_show(evaluation.accuracy, rules.accuracy, evaluation.design_effect)
        told = f"about {numbers.count(needed)}" if needed else "very many"
        size = numbers.counted(evaluation.examples, "message")
        why = (
            f"{numbers.percent(evaluation.accuracy)} of {size} are right, above the "
            f"{numbers.percent(rules.accuracy)} that are wanted, but so few messages do not show "
            f"it: {told} held-out messages would."
        )
        yield NextStep(BAD, "Hold more messages out", why, _share(run, evaluation, needed))
        low = None
    rows = [row for row in (low, failed.get("macro-F1")) if row is not None]
    if rows:
        weakest = sorted(
            (each for each in evaluation.per_label if each.support), key=lambda each: each.f1
        )[:3]
        told = ", ".join(f"{each.label} ({numbers.decimal(each.f1, 2)})" for each in weakest)
        found = "; ".join(f"{row.name} is {row.found}, wanted {row.wanted}" for row in rows)
        why = (
            f"{found}. The labels with the lowest F1 are {told}: decide on the doubted labels "
            "there first, then label more of them."
        )
        sweep = _sweep(run)
        why += (
            " A sweep tries other learning rates."
            if sweep
            else " The penalty of its regression was chosen on validation already: an encoder that "
            'is trained itself (kind = "encoder") learns more than one that stays as it is.'
        )
        check = check_command(Path(run.training.dataset.directory), base_of(run))
        yield NextStep(BAD, "Make it better", why, (check, *sweep))


def base_of(run: Run) -> str:
    """Return the folder of the run's base, or a word to fill in where its record has none."""
    return run.training.base.directory or "BASE"


def recipe_words(run: Run) -> tuple[str | Path, ...]:
    """Return the options that train as the run was trained, but for ``--out``."""
    return (
        *("--recipe", run.directory / TRAINING.name),
        *("--dataset", run.training.dataset.directory),
        *("--base", base_of(run)),
    )


def _sweep(run: Run) -> tuple[str, ...]:
    """Return the command that tries half and twice the learning rate, where the kind has one."""
    rate = run.training.recipe.get("learning_rate")
    if rate is None:
        return ()
    out = free_folder(run.directory.with_name(f"{run.directory.resolve().name}-sweep"))
    grid = f"learning_rate={rate / 2:g},{rate * 2:g}"
    return (command("sweep", *recipe_words(run), "--out", out, "--grid", grid),)


def _labels(
    run: Run, evaluation: EvaluationRecord, failed: dict[str, Criterion]
) -> Iterator[NextStep]:
    rows = [row for name, row in failed.items() if name.startswith("recall of ")]
    if not rows:
        return
    told = "; ".join(f"{row.name}: {row.found}, wanted {row.wanted}" for row in rows[:5])
    more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
    weak = {row.name.removeprefix("recall of ").partition(",")[0] for row in rows}
    at = {label: place for place, label in enumerate(evaluation.labels)}
    taken = []
    for label in sorted(weak & at.keys()):
        counts = [
            (count, other)
            for count, other in zip(evaluation.confusion[at[label]], evaluation.labels, strict=True)
            if other != label and count
        ]
        if counts:
            count, other = max(counts)
            taken.append(f"{label} is answered with {other} {numbers.times(count)}")
    why = f"{told}{more}. {'; '.join(taken[:5])}{'.' if taken else ''}".strip()
    again = check_command(Path(run.training.dataset.directory), base_of(run))
    yield NextStep(BAD, "Label more of the weak labels", why, (again,))


def _answers(failed: dict[str, Criterion], evaluate: str) -> Iterator[NextStep]:
    for name in ("answers outside the set", "free answers outside the set"):
        if row := failed.get(name):
            why = f"{row.found}, wanted {row.wanted}: it was measured with other labels or codes "
            why += "than it has, or has not learnt to answer with a code. Train longer."
            yield NextStep(BAD, f"Find out about {name}", why, (evaluate,))
    if row := failed.get("precision of labels without review"):
        why = (
            f"It is {row.found}; wanted: {row.wanted}. Below that, more wrong labels reach the "
            "routers unseen than was promised."
        )
        yield NextStep(BAD, "Send more to review, or prove that it is right", why)
    if row := failed.get("calibration error (ECE)"):
        why = (
            f"It is {row.found}, wanted {row.wanted}. Set more messages aside for validation, on "
            "which the temperature is fitted, and train again."
        )
        yield NextStep(BAD, "Make its confidence mean something", why)


def _current(judged: Judged, failed: dict[str, Criterion]) -> Iterator[NextStep]:
    row = failed.get("against the current adapter")
    if row is None:
        return
    why = f"{row.found}. Wanted: {row.wanted}."
    if judged.hint:
        yield NextStep(BAD, "Make it comparable with the current adapter", f"{why} {judged.hint}.")
    else:
        yield NextStep(BAD, "Leave the current adapter where it is", why)


def _messages_to_show(accuracy: float, floor: float, effect: float) -> int | None:
    """Return how many messages of this accuracy have an interval above the floor, None where even
    a hundred thousand have not; ``effect`` of them count as one."""

    def lower(messages: int) -> float:
        return wilson(accuracy * messages / effect, messages / effect)[0]

    low, high = 1, _MOST_MESSAGES
    if lower(high) < floor:
        return None
    while low < high:
        middle = (low + high) // 2
        if lower(middle) >= floor:
            high = middle
        else:
            low = middle + 1
    return high


def _share(run: Run, evaluation: EvaluationRecord, needed: int | None) -> tuple[str, ...]:
    dataset = run.dataset or {}
    share = (dataset.get("settings") or {}).get("holdout_share")
    if not share or needed is None or not evaluation.examples:
        return ()
    wanted = share * needed / evaluation.examples
    return larger_share(dataset, "holdout", wanted) if wanted <= _MOST_HELD_OUT else ()
