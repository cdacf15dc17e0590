"""Recommended next steps for a run: gate failures first, then improvements, then publishing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from trainer import facts, numbers
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.training import TRAINING
from trainer.commands import base_words, command
from trainer.languages import TAKE_ANOTHER, foreign_languages, language_names
from trainer.report.measured import ONE_WAY, TWO_WAY, confused_pairs
from trainer.report.page import (
    BAD,
    GOOD,
    MANY_OPENINGS,
    WARN,
    Content,
    NextStep,
    check_command,
    free_folder,
    fresh_holdout,
    larger_share,
    rank_steps,
    show_steps,
)
from trainer.report.run import Judged, Run
from trainer.report.verdict import promise_is_broken, promised
from trainer.statistics.metrics import messages_to_show
from trainer.statistics.thresholds import REVIEW_IS_MUCH, describe_promise
from trainer.store.gate import STEERING
from trainer.store.rules import Criterion, GateRules

_STILL_RISING = 0.01


def steps_section(run: Run) -> Content:
    """Return the recommended steps, in order."""
    lead = (
        "In this order: reasons why it cannot be published, then possible improvements and missing "
        "measurements, then publishing. Replace the words in capitals in a command."
    )
    return show_steps(_steps(run), lead)


def first_step(run: Run) -> str:
    """Return the title of the most urgent step."""
    return rank_steps(_steps(run))[0].title


def _steps(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        why = "The adapter has not been measured on held-out messages."
        yield NextStep(BAD, "Evaluate it", why, (_evaluate(run),))
    yield from _languages(run)
    yield from fix_criteria(run, _evaluate(run))
    yield from _reviewed(run)
    yield from _mixed_up(run)
    yield from _compared(run)
    yield from _learnt(run)
    yield from _unknown(run)
    yield from _published(run)


def _languages(run: Run) -> Iterator[NextStep]:
    base = run.training.base
    if strange := foreign_languages(run.training.dataset.languages, base.languages):
        why = (
            f"Of the messages: {strange}. The base {base.name} knows "
            f"{language_names(base.languages)}, so it learns other languages from these messages "
            f"alone, and what is unlike them is mislabelled. Better {TAKE_ANOTHER}."
        )
        yield NextStep(WARN, "Take a base that knows the language", why)


def _compared(run: Run) -> Iterator[NextStep]:
    adapter, folder = run.directory / "adapter", run.directory
    if run.duel is None:
        why = "A baseline without a GPU may be as good. A duel compares both on the same messages."
        words: tuple[str | Path, ...] = (adapter, *_data(run))
        if run.evaluation is not None:
            words = (*words, "--evaluation", folder / "evaluation")
        yield NextStep(WARN, "Compare it with simpler methods", why, (command("duel", *words),))
        return
    duel = run.duel
    if duel.conclusion in {"better", "not_worse"}:
        title = f"Ship {duel.recommendation} instead"
        yield NextStep(BAD, title, duel.verdict, _ship(run, duel))
    elif duel.conclusion == "undecided":
        # Twice the margin; the option takes points, the record has a share.
        wider = f"{200 * duel.margin:g}"
        words = (adapter, *_data(run), "--margin", wider)
        why = (
            f"{duel.verdict} Hold out more messages, or choose a larger margin before you run the "
            "duel again."
        )
        title = "Find out whether a baseline is good enough"
        yield NextStep(WARN, title, why, (command("duel", *words),))


def _ship(run: Run, duel: DuelRecord) -> tuple[str, ...]:
    """Return the command that publishes the duel's recommendation, if a worker can serve it."""
    named = (each for each in duel.candidates if each.name == duel.recommendation)
    if not any(each.served_as for each in named):
        return ()
    store = run.gate.store if run.gate and run.gate.store else "STORE"
    return (command("publish", run.directory, "--store", store, "--what", duel.recommendation),)


def _mixed_up(run: Run) -> Iterator[NextStep]:
    if run.evaluation is None:
        return
    evaluation = run.evaluation
    pairs = confused_pairs(evaluation.labels, evaluation.confusion, run.predictions)
    one = [pair for pair in pairs if pair.kind == ONE_WAY][:3]
    two = [pair for pair in pairs if pair.kind == TWO_WAY][:3]
    if one:
        pairs_ = "; ".join(f"{p.label} close to {p.other} ({p.forth} mistakes)" for p in one)
        why = f"Add training messages of {pairs_}."
        yield NextStep(WARN, "Label more messages of confused labels", why, (_check(run),))
    if two:
        pairs_ = "; ".join(f"{p.label} and {p.other} ({p.total} mistakes)" for p in two)
        why = (
            f"Confused in both directions: {pairs_}. Clarify their descriptions in the taxonomy, "
            "and decide on the doubtful labels of both."
        )
        yield NextStep(WARN, "Clarify labels that overlap", why, (_check(run),))


def _reviewed(run: Run) -> Iterator[NextStep]:
    # A promise that the hold-out refutes is a failed criterion of the gate, with its own step.
    if run.evaluation is not None and not promise_is_broken(run, run.evaluation):
        share = run.evaluation.review.share
        if share > REVIEW_IS_MUCH:
            yield _much_review(run, share)


def _much_review(run: Run, share: float) -> NextStep:
    """Say what a lower promise brings, or how many messages keep this one."""
    found, title = run.training.validation, "Decide how much goes to review"
    why = f"{numbers.percent(share)} go to review. "
    if found.promise is None:
        why += (
            f"That is what a promise of {numbers.percent(promised(run))} takes with this adapter: "
            "a more accurate one sends less. Label more messages, of confused labels first."
        )
        return NextStep(WARN, title, why)
    why += f"{describe_promise(found.promise, found.examples)}."
    if found.promise.lesser is None:
        return NextStep(WARN, title, f"{why} Label more messages.")
    lower = _train(run, "--set", f"review_precision={found.promise.lesser:g}")
    return NextStep(WARN, title, why, (lower,))


def _learnt(run: Run) -> Iterator[NextStep]:
    epochs = run.training.epochs
    if epochs and len(epochs) > 1 and run.training.best_epoch == epochs[-1].number:
        why = f"The last of {len(epochs)} epochs is the best on validation: it was still learning."
        again = _train(run, "--set", f"epochs={len(epochs) + 2}")
        yield NextStep(WARN, "Train longer", why, (again,))
    rising = sorted(_rising(run), key=lambda found: -found[1])
    if rising:
        name, gain, size = rising[0]
        why = (
            f"On the learning curve of {name}, the last step to {numbers.count(size)} examples per "
            f"label gained {numbers.points(gain)} on validation: the curve is still rising."
        )
        yield NextStep(WARN, "Label more messages", why)


def _rising(run: Run) -> Iterator[tuple[str, float, float]]:
    for name, curve in facts.learning_curves(run.duel).items():
        if len(curve) > 1 and curve[-1][1] - curve[-2][1] > _STILL_RISING:
            yield name, curve[-1][1] - curve[-2][1], curve[-1][0]


def _unknown(run: Run) -> Iterator[NextStep]:
    """Yield a step for each missing measurement."""
    if run.evaluation is not None:
        if run.audit is None:
            why = (
                "The accuracy is measured against the hold-out's labels, which contain mistakes. "
                "Reviewers who decide on a sample blind (at the desk, or with clerk-desk label) "
                "give the accuracy against true labels."
            )
            # Next to the dataset: the tasks have messages, and a run folder has none.
            data = Path(_dataset(run))
            tasks, decisions = (
                data.with_name(f"{data.name}-audit.{end}") for end in ("jsonl", "decisions.csv")
            )
            steps = (
                command("tasks", _dataset(run), "--for", "audit", "--out", tasks),
                f"clerk-desk label {shlex.quote(str(tasks))} --taxonomy FILE",
                command("audit", run.directory / "evaluation", "--decisions", decisions),
            )
            yield NextStep(WARN, "Audit the hold-out's labels", why, steps)
        if run.evaluation.out_of_scope is None:
            why = "In service some messages fit no label. How many go to review is not measured."
            again = f"{_evaluate(run)} --out-of-scope FILE"
            yield NextStep(WARN, "Measure it on messages that fit no label", why, (again,))
        openings = run.evaluation.dataset.openings if run.openings is None else run.openings
        if openings > MANY_OPENINGS:
            how, fresh = fresh_holdout(run.dataset or {})
            why = (
                f"The hold-out has been opened {numbers.times(openings)}. Every opening can bias "
                f"later choices towards it. {how} Train on that dataset."
            )
            yield NextStep(WARN, "Draw a new hold-out", why, fresh)
    if run.check is None and run.dataset is not None:
        why = "The data was not checked for wrong labels."
        yield NextStep(WARN, "Check the data", why, (_check(run),))
    elif run.check is not None and run.check.verdict in {"warn", "fail"}:
        why = "The check of the data has findings. The dataset's page lists what to do."
        report = command("report", _dataset(run))
        tone = BAD if run.check.verdict == "fail" else WARN
        yield NextStep(tone, "Fix the data", why, (report,))
    if run.cost is None:
        why = "The cost and the break-even are not computed."
        cost = command("cost", run.directory, "--inputs", "FILE")
        yield NextStep(WARN, "Compute the cost", why, (cost,))


def _published(run: Run) -> Iterator[NextStep]:
    judged = run.gate
    if judged is None or not judged.verdict.passed:
        return
    store: str | Path = judged.store or "STORE"
    words = (run.directory, "--store", store, *_rules(judged.rules))
    dry_run = command("publish", *words, "--dry-run")
    if judged.store is not None and not judged.has_current:
        why = "It passes the gate. The store has no current adapter; this becomes the first."
        yield NextStep(GOOD, "Publish it", why, (dry_run, command("publish", *words)))
        return
    canary = command("publish", *words, "--canary", "0.05")
    promote = command("promote", "--store", store)
    why = "It passes the gate. Publish it as a canary for a share of the keys, then promote it."
    if judged.store is None:
        why = (
            "It passes the gate, except that publishing also compares it with the current adapter. "
            "A canary labels a share of the keys first and stops by itself if it does worse. Leave "
            "out --canary if the store has no current adapter."
        )
    yield NextStep(GOOD, "Publish it", why, (dry_run, canary, promote))


def _rules(rules: GateRules) -> Iterator[str]:
    """Yield the options that make the gate use the rules of this page."""
    usual = GateRules()
    for rule in fields(rules):
        value = getattr(rules, rule.name)
        if value != getattr(usual, rule.name):
            # JSON of numbers and of lists of texts is TOML; null is written as false.
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield from ("--set", f"{rule.name}={'false' if value is None else text}")


def _dataset(run: Run) -> str:
    return run.training.dataset.directory


def _data(run: Run) -> tuple[str, ...]:
    return "--dataset", _dataset(run), *base_of(run)


def _evaluate(run: Run) -> str:
    return command("evaluate", run.directory / "adapter", *_data(run))


def _train(run: Run, *changes: str) -> str:
    again = free_folder(run.directory.with_name(f"{run.directory.resolve().name}-next"))
    if found := run.training.imported:
        said = ("--unseen", found.unseen) if found.unseen else ()
        words: tuple[str | Path, ...] = (found.source, *found.options, "--dataset", _dataset(run))
        return command("import", *words, "--out", again, *said, *changes)
    return command("train", *recipe_words(run), "--out", again, *changes)


def _check(run: Run) -> str:
    return check_command(Path(_dataset(run)), *base_of(run))


# Steps for failed criteria of the gate.


def fix_criteria(run: Run, evaluate: str) -> Iterator[NextStep]:
    """Yield a step for each kind of failed gate row. ``evaluate`` is the command that evaluates the
    run."""
    judged, evaluation = run.gate, run.evaluation
    if judged is None or evaluation is None:
        return
    failed = {row.name: row for row in judged.verdict.criteria if not row.passed}
    yield from _evidence(run, failed, evaluate)
    yield from _accuracy(run, judged, evaluation, failed)
    yield from _labels(run, evaluation, failed)
    yield from _answers(run, failed, evaluate)
    yield from _steering(run, failed, evaluate)
    yield from _current(judged, failed)


def _evidence(run: Run, failed: dict[str, Criterion], evaluate: str) -> Iterator[NextStep]:
    again = [failed[name] for name in ("adapter evaluated", "hold-out", "predictions")
             if name in failed]  # fmt: skip
    if again:
        why = "; ".join(f"{row.name}: {row.found}, wanted: {row.wanted}" for row in again)
        yield NextStep(BAD, "Evaluate it again, on the whole hold-out", f"{why}.", (evaluate,))
    if row := failed.get("hold-out's labels"):
        yield NextStep(BAD, "Have reviewers label a hold-out", f"{row.found}.")
    if (row := failed.get("hold-out unseen")) and run.training.imported is not None:
        why = f"{row.found}. Or prepare a dataset of messages that are newer than the model."
        title = "Say why it has not seen the hold-out"
        yield NextStep(BAD, title, why, (_train(run, "--unseen", "REASON"),))
    elif row:
        proven = f"{evaluate} --trained-on {shlex.quote(run.training.dataset.directory)}"
        why = f"It was measured on {row.found}."
        yield NextStep(BAD, "Show that it has not seen the hold-out", why, (proven,))


def _accuracy(
    run: Run, judged: Judged, evaluation: EvaluationRecord, failed: dict[str, Criterion]
) -> Iterator[NextStep]:
    rules = judged.rules
    low = next((row for name, row in failed.items() if name.startswith("accuracy")), None)
    settled = judged.verdict.settled
    if low is not None and low.undecided and settled is not None:
        needed = messages_to_show(settled.accuracy, rules.accuracy, settled.effect)
        why = (
            f"{low.name} is {low.found}, wanted {low.wanted}: enough are right or in review, but "
            "so few messages do not prove it."
        )
        yield NextStep(BAD, "Hold out more messages", why, _share(run, evaluation, needed))
        low = None
    rows = [row for row in (low, failed.get("macro-F1 after review")) if row is not None]
    if rows:
        weakest = sorted(
            (each for each in evaluation.per_label if each.support), key=lambda each: each.f1
        )[:3]
        names = ", ".join(f"{each.label} ({numbers.decimal(each.f1, 2)})" for each in weakest)
        found = "; ".join(f"{row.name} is {row.found}, wanted {row.wanted}" for row in rows)
        tried = _half_the_rate(run)
        hint = (
            "Half the learning rate may do better; compare by validation."
            if tried
            else "One that is trained here learns from your labelled messages."
            if run.training.imported
            else 'An encoder that is fine-tuned (kind = "encoder") learns more than a frozen one.'
        )
        why = (
            f"{found}. The labels with the lowest F1 are {names}: decide on their doubtful labels "
            f"first, then label more messages. {hint}"
        )
        check = check_command(Path(run.training.dataset.directory), *base_of(run))
        yield NextStep(BAD, "Improve the accuracy", why, (check, *tried))
    if row := failed.get("against the commonest label"):
        why = f"It is not shown to be better than one label for every message. It is {row.found}."
        yield NextStep(BAD, "Label more messages", why, (_check(run),))


def base_of(run: Run) -> tuple[str, ...]:
    """Return the option for the run's base, if it needs one."""
    return base_words(run.training.base.directory)


def recipe_words(run: Run) -> tuple[str | Path, ...]:
    """Return the options that repeat the run's training, without ``--out``."""
    return (
        *("--recipe", run.directory / TRAINING.name),
        *("--dataset", run.training.dataset.directory),
        *base_of(run),
    )


def _half_the_rate(run: Run) -> tuple[str, ...]:
    """Return the command that trains with half the learning rate, if the kind has one."""
    rate = run.training.recipe.get("learning_rate")
    if rate is None:
        return ()
    out = free_folder(run.directory.with_name(f"{run.directory.resolve().name}-slower"))
    half = f"learning_rate={rate / 2:g}"
    return (command("train", *recipe_words(run), "--out", out, "--set", half),)


def _labels(
    run: Run, evaluation: EvaluationRecord, failed: dict[str, Criterion]
) -> Iterator[NextStep]:
    rows = [row for name, row in failed.items() if name.startswith("recall of ")]
    if not rows:
        return
    found = "; ".join(f"{row.name}: {row.found}, wanted {row.wanted}" for row in rows[:5])
    more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
    weak = {row.name.removeprefix("recall of ").partition(" after review")[0] for row in rows}
    at = {label: place for place, label in enumerate(evaluation.labels)}
    confused = []
    for label in sorted(weak & at.keys()):
        counts = [
            (count, other)
            for count, other in zip(evaluation.confusion[at[label]], evaluation.labels, strict=True)
            if other != label and count
        ]
        if counts:
            count, other = max(counts)
            confused.append(f"{label} is answered with {other} {numbers.times(count)}")
    why = f"{found}{more}. {'; '.join(confused[:5])}{'.' if confused else ''}".strip()
    again = check_command(Path(run.training.dataset.directory), *base_of(run))
    yield NextStep(BAD, "Label more messages of weak labels", why, (again,))


def _answers(run: Run, failed: dict[str, Criterion], evaluate: str) -> Iterator[NextStep]:
    for name in ("answers outside the set", "free answers outside the set"):
        if row := failed.get(name):
            why = (
                f"{row.found}, wanted {row.wanted}. Either it was evaluated with other labels or "
                "codes, or it has not learnt to answer with a code: train longer."
            )
            yield NextStep(BAD, f"Fix {name}", why, (evaluate,))
    if row := failed.get("precision of labels without review"):
        why = (
            f"It is {row.found}; wanted: {row.wanted}. Otherwise more wrong labels are routed "
            "without review than promised. Use more validation messages that resemble the "
            "hold-out, or send more to review with a higher review_precision."
        )
        # Half of the mistakes that the present promise allows.
        promise = promised(run)
        higher = f"review_precision={min(0.999, promise + (1 - promise) / 2):g}"
        again = _train(run, "--set", higher)
        yield NextStep(BAD, "Send more to review, or prove the precision", why, (again,))
    if row := failed.get("calibration error (ECE)"):
        why = (
            f"It is {row.found}, wanted {row.wanted}. The temperature was fitted on "
            f"{facts.thresholds_from(run.training.validation)}: use more and train again."
        )
        by_folds = run.training.validation.folds is not None
        more = () if by_folds else larger_share(run.dataset or {}, "validation")
        yield NextStep(BAD, "Improve the calibration", why, more)


def _steering(run: Run, failed: dict[str, Criterion], evaluate: str) -> Iterator[NextStep]:
    rows = [row for name, row in failed.items() if name.startswith(STEERING)]
    if not rows:
        return
    if run.evaluation is not None and run.evaluation.steering is None:
        why = f"{rows[0].found}."
        yield NextStep(BAD, "Measure whether a sentence can choose the label", why, (evaluate,))
        return
    found = "; ".join(f"{row.name}: {row.found}, wanted {row.wanted}" for row in rows)
    recipe = run.training.recipe
    commands: tuple[str, ...] = ()
    if run.training.imported is not None:
        how = "One that is trained here learns to, from your labelled messages."
    elif recipe.get("kind") == "embedding-linear":
        how = (
            "A frozen encoder can hardly tell a sentence about a label from one about the matter. "
            'One that is fine-tuned (kind = "encoder") learns to, from enough messages.'
        )
    else:
        # 0.4 is the recipe's default.
        share = max(0.4, round(min(0.95, 1.5 * recipe.get("steering_augmentation", 0)), 2))
        how = "Train with more messages that have such a sentence in them and their true label."
        commands = (_train(run, "--set", f"steering_augmentation={share}"),)
    why = f"{found}. A customer who names a label can get it. {how}"
    yield NextStep(BAD, "Teach it to pass over sentences that name a label", why, commands)


def _current(judged: Judged, failed: dict[str, Criterion]) -> Iterator[NextStep]:
    row = failed.get("against the current adapter")
    if row is None:
        return
    why = f"{row.found}. Wanted: {row.wanted}."
    if judged.hint:
        yield NextStep(BAD, "Make it comparable with the current adapter", f"{why} {judged.hint}.")
    else:
        yield NextStep(BAD, "Keep the current adapter", why)


def _share(run: Run, evaluation: EvaluationRecord, needed: int | None) -> tuple[str, ...]:
    dataset = run.dataset or {}
    share = (dataset.get("settings") or {}).get("holdout_share")
    if not share or needed is None or not evaluation.examples:
        return ()
    return larger_share(dataset, "holdout", share * needed / evaluation.examples)
