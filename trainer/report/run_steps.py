"""What to do next with a run: first what the gate refuses, then what would make it better or better
known, and the way to service last."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from trainer import facts, numbers
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.training import TRAINING
from trainer.report.measured import ONE_WAY, TWO_WAY, confused_pairs
from trainer.report.page import (
    BAD,
    GOOD,
    MANY_OPENINGS,
    WARN,
    NextStep,
    Section,
    check_command,
    command,
    free_folder,
    fresh_holdout,
    larger_share,
    next_section,
)
from trainer.report.run import Judged, Run
from trainer.report.verdict import LARGEST_ECE, promise_is_broken, promised
from trainer.statistics.calibration import ece_by_chance
from trainer.statistics.metrics import wilson
from trainer.store.rules import Criterion, GateRules

_REVIEW_IS_MUCH = 0.2
_STILL_RISING = 0.01


def steps_section(run: Run) -> Section:
    """Return what to do, in order: what the gate refuses first, the way to service last."""
    lead = (
        "In this order: what keeps it from being published, what would make it better or better "
        "known, and the way on. Words in capitals are yours to fill in."
    )
    return next_section(list(_steps(run)), lead)


def _steps(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        why = "Nothing can be said of an adapter that was not measured on held-out messages."
        yield NextStep(BAD, "Measure it", why, (_evaluate(run),))
    yield from mend_criteria(run, _evaluate(run))
    yield from _compared(run)
    yield from _mixed_up(run)
    yield from _reviewed(run)
    yield from _calibrated(run)
    yield from _learnt(run)
    yield from _unknown(run)
    yield from _published(run)


def _compared(run: Run) -> Iterator[NextStep]:
    adapter, folder = run.directory / "adapter", run.directory
    if run.duel is None:
        why = (
            "A baseline that costs no GPU may do as well: nobody knows before both answered the "
            "same messages."
        )
        words: tuple[str | Path, ...] = (adapter, *_data(run))
        if run.evaluation is not None:
            words = (*words, "--evaluation", folder / "evaluation")
        yield NextStep(WARN, "Compare it with simpler methods", why, (command("duel", *words),))
        return
    duel = run.duel
    if duel.conclusion in {"better", "not_worse"}:
        title = f"Ship {duel.recommendation} in its place"
        yield NextStep(BAD, title, duel.verdict, _ship(run, duel))
    elif duel.conclusion == "undecided":
        wider = f"{200 * duel.margin:g}"
        words = (adapter, *_data(run), "--margin", wider)
        why = (
            f"{duel.verdict} Hold more messages out, or state a margin that you can live with "
            "before you look."
        )
        yield NextStep(
            WARN, "Find out whether a baseline would do", why, (command("duel", *words),)
        )


def _ship(run: Run, duel: DuelRecord) -> tuple[str, ...]:
    """Return the command that publishes what the duel recommends, where a worker can serve it."""
    named = (each for each in duel.candidates if each.name == duel.recommendation)
    if not any(each.served_as for each in named):
        return ()
    store = run.gate.store if run.gate and run.gate.store else "STORE"
    return (command("publish", run.directory, "--store", store, "--what", duel.recommendation),)


def _mixed_up(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        return
    pairs = confused_pairs(run.evaluation.labels, run.evaluation.confusion)
    one = [pair for pair in pairs if pair.kind == ONE_WAY][:3]
    two = [pair for pair in pairs if pair.kind == TWO_WAY][:3]
    if one:
        told = "; ".join(f"{p.label} that border on {p.other} ({p.forth} mistakes)" for p in one)
        why = f"Messages of {told}. More of them in training is what helps."
        yield NextStep(WARN, "Label more of what is taken for something else", why, (_check(run),))
    if two:
        told = "; ".join(f"{p.label} and {p.other} ({p.total} mistakes)" for p in two)
        why = (
            f"{told}: each is taken for the other. Say in the taxonomy's descriptions what belongs "
            "where, and have the doubted labels of both decided."
        )
        yield NextStep(WARN, "Sharpen labels that overlap", why, (_check(run),))


def _reviewed(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        return
    review, promise = run.evaluation.review, promised(run)
    told = numbers.percent(promise)
    if promise_is_broken(run, run.evaluation):
        why = (
            f"Of what it answers without a person {numbers.percent(review.accepted_accuracy)} are "
            f"right on the hold-out, where {told} are promised: fewer than chance explains. "
            "Validate on more messages, and on such as the hold-out has; a higher aim sends more "
            "to people."
        )
        higher = f"review_precision={min(0.999, promise + (1 - promise) / 2):g}"
        again = _train(run, "--set", higher)
        yield NextStep(WARN, "Send more to people, or validate on more", why, (again,))
    elif review.share > _REVIEW_IS_MUCH:
        found = run.training.validation.promise
        lesser = found.lesser if found and found.lesser else promise - 0.05
        why = (
            f"{numbers.percent(review.share)} go to a person. More validation messages prove the "
            f"promise of {told} with less review; a lower promise does at once."
        )
        again = _train(run, "--set", f"review_precision={max(0.5, lesser):g}")
        yield NextStep(WARN, "Weigh how much goes to people", why, (again,))


def _calibrated(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        return
    found = run.evaluation.calibration
    chance = ece_by_chance(found.reliability)
    if found.ece > max(LARGEST_ECE, chance):
        why = (
            f"Confidence and accuracy are {numbers.percent(found.ece)} apart on average; perfect "
            f"confidences would show up to {numbers.percent(chance)} by chance on as many "
            "messages. The temperature was fitted on "
            f"{numbers.counted(run.training.calibration.examples, 'validation message')}: set "
            "more aside for validation."
        )
        more = larger_share(run.dataset or {}, "validation")
        yield NextStep(WARN, "Calibrate on more messages", why, more)


def _learnt(run: Run) -> Iterator[NextStep]:
    epochs = run.training.epochs
    if epochs and len(epochs) > 1 and run.training.best_epoch == epochs[-1].number:
        why = f"The last of {len(epochs)} epochs did best on validation: it was still learning."
        again = _train(run, "--set", f"epochs={len(epochs) + 2}")
        yield NextStep(WARN, "Train longer", why, (again,))
    rising = sorted(_rising(run), key=lambda found: -found[1])
    if rising:
        name, gain, size = rising[0]
        why = (
            f"The last step of the curve of {name}, to {numbers.count(size)} examples a label, "
            f"brought {numbers.points(gain)} on validation: it has not levelled off."
        )
        yield NextStep(WARN, "Label more messages", why)


def _rising(run: Run) -> Iterator[tuple[str, float, float]]:
    for name, curve in facts.learning_curves(run.duel).items():
        if len(curve) > 1 and curve[-1][1] - curve[-2][1] > _STILL_RISING:
            yield name, curve[-1][1] - curve[-2][1], curve[-1][0]


def _unknown(run: Run) -> Iterator[NextStep]:
    """Yield a step for each thing that nobody has measured."""
    if run.evaluation is not None:
        if run.audit is None:
            why = (
                "The accuracy is by the hold-out's labels, which are as noisy as any. A person who "
                "labels a sample of it blind tells what it is by the true ones."
            )
            sample = command("audit-sample", _dataset(run), "--half-width", "0.03")
            folder = run.directory / "evaluation"
            audit = command("audit", folder, "--sample", "FILE")
            yield NextStep(WARN, "Have the hold-out's labels audited", why, (sample, audit))
        if run.evaluation.out_of_scope is None:
            why = (
                "It will meet messages that fit no label; how many of them it sees through is open."
            )
            again = f"{_evaluate(run)} --out-of-scope FILE"
            yield NextStep(WARN, "Measure it on messages that fit no label", why, (again,))
        openings = run.evaluation.dataset.openings if run.openings is None else run.openings
        if openings > MANY_OPENINGS:
            how, fresh = fresh_holdout(run.dataset or {})
            why = (
                f"The hold-out has been opened {numbers.times(openings)}; what is chosen by it is "
                f"tuned to it. {how} Train on that dataset."
            )
            yield NextStep(WARN, "Draw a fresh hold-out", why, fresh)
    if run.check is None and run.dataset is not None:
        yield NextStep(
            WARN, "Have the data checked", "Nobody looked for wrong labels.", (_check(run),)
        )
    elif run.check is not None and run.check.verdict in {"warn", "fail"}:
        why = "The check of its data has concerns; the page about the dataset says what to do."
        report = command("report", _dataset(run))
        tone = BAD if run.check.verdict == "fail" else WARN
        yield NextStep(tone, "See to the data", why, (report,))
    if run.cost is None:
        why = (
            "What it costs, and from how many messages on it has paid for itself, is not computed."
        )
        cost = command("cost", run.directory, "--inputs", "FILE")
        yield NextStep(WARN, "Work out the cost", why, (cost,))


def _published(run: Run) -> Iterator[NextStep]:
    judged = run.gate
    if judged is None or not judged.passed:
        return
    store: str | Path = judged.store or "STORE"
    words = (run.directory, "--store", store, *_rules(judged.rules))
    dry_run = command("publish", *words, "--dry-run")
    if judged.store is not None and not judged.has_current:
        why = "The gate's rows pass. Nothing is current in the store: this will be."
        yield NextStep(GOOD, "Publish it", why, (dry_run, command("publish", *words)))
        return
    canary = command("publish", *words, "--canary", "0.05")
    promote = command("promote", "--store", store)
    why = "The gate's rows pass. A canary labels a share of the keys first, then it is promoted."
    if judged.store is None:
        why = (
            "The gate's rows pass; whether it is as good as the adapter that is current is asked "
            "when it is published. A canary labels a share of the keys first, and stops itself "
            "when it does worse; in a store where nothing is current leave --canary out."
        )
    yield NextStep(GOOD, "Publish it", why, (dry_run, canary, promote))


def _rules(rules: GateRules) -> Iterator[str]:
    """Yield the options that give the gate the rules by which the page was judged."""
    usual = GateRules()
    for rule in fields(rules):
        value = getattr(rules, rule.name)
        if value != getattr(usual, rule.name):
            yield from ("--set", f"{rule.name}={value}")


def _dataset(run: Run) -> str:
    return run.training.dataset.directory


def _data(run: Run) -> tuple[str, ...]:
    return "--dataset", _dataset(run), "--base", base_of(run)


def _evaluate(run: Run) -> str:
    return command("evaluate", run.directory / "adapter", *_data(run))


def _train(run: Run, *changes: str) -> str:
    again = free_folder(run.directory.with_name(f"{run.directory.resolve().name}-next"))
    return command("train", *recipe_words(run), "--out", again, *changes)


def _check(run: Run) -> str:
    return check_command(Path(_dataset(run)), base_of(run))


# What to do about each criterion of the gate that is not met.

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
