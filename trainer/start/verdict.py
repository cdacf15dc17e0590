"""The end of ``start``: what came out, in three lines for a support lead, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.artifacts.duel import DUEL, DUEL_FOLDER, DuelRecord
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, EvaluationRecord
from trainer.artifacts.training import TRAINING
from trainer.check.findings import CHECK
from trainer.dataset.folder import SPLITS, open_dataset
from trainer.numbers import of_100, percent
from trainer.report.dataset_facts import what_dataset_can_show
from trainer.report.run import GateChoice, Judged, judge_run, read_run
from trainer.report.run_steps import first_step
from trainer.start.plan import Places
from trainer.statistics.thresholds import REVIEW_IS_MUCH, describe_lesser
from trainer.store.publish import EARLIER
from worker.contract import read_manifest
from worker.contract.store import read_pointer

_PROMISED = "review_precision="


@dataclass(frozen=True, slots=True)
class End:
    """``lines``: how often it is right, what it files by itself, whether to publish it. ``passes``:
    it may be published, or is. ``lesser`` is a lower promise with which it would file more, None if
    that is not needed, or none is within reach. ``first`` is what the page recommends first,
    ``doubtful`` the number of labels to decide."""

    lines: tuple[str, str, str]
    passes: bool
    lesser: float | None = None
    first: str = ""
    doubtful: int = 0


def verdict(places: Places) -> End:
    """Return the end of a run. Raises BadInput, AdapterRefused."""
    evaluation = EVALUATION.read(places.run / EVALUATION_FOLDER)
    duel = DUEL.read(places.run / DUEL_FOLDER)
    judged = judge_run(places.run, GateChoice(places.store))
    assert judged is not None  # it was evaluated
    current = read_pointer(places.store)
    done = current is not None and current.digest == evaluation.adapter.digest
    published = f"Publish: done. It passed the gate, and is current in {places.store}."
    publish = published if done else _publish(judged, duel)
    files, lesser = review_line(evaluation), None
    promise = TRAINING.read(places.run).validation.promise
    if evaluation.review.share > REVIEW_IS_MUCH and promise is not None:
        lesser = promise.lesser
        if choice := describe_lesser(promise):
            files = f"{files} Your choice: {choice}."
    first = first_step(replace(read_run(places.run), gate=judged))
    lines = (accuracy_line(evaluation), files, publish)
    passes = done or judged.verdict.passed
    return End(lines, passes, lesser, first, CHECK.read(places.data).doubtful)


def describe_step(
    step: str, places: Places, promised_precision: float, *, by_folds: bool = False
) -> str:
    """Return the result of a finished step in a sentence, without a message's text; of ``prepare``
    also what its parts can show."""
    if step == "prepare":
        record = open_dataset(places.data).record
        sizes = [record["files"][f"{name}.jsonl"]["examples"] for name in SPLITS]
        split = (
            f"{sizes[0]:,} messages to learn from, {sizes[1]:,} to choose by, {sizes[2]:,} kept "
            "aside for the test"
        )
        return "\n    ".join(
            (split, *what_dataset_can_show(record, promised_precision, by_folds=by_folds))
        )
    if step == "check":
        found = CHECK.read(places.data)
        open_ = [name for name, verdict in found.verdicts.items() if verdict in {"warn", "fail"}]
        concerns = f"; to look at: {', '.join(open_)}" if open_ else ""
        listed = f"{found.doubtful:,} doubtful labels, listed in {places.queue}"
        return f"{listed if found.doubtful else 'no label is shown to be wrong'}{concerns}"
    if step == "train":
        training = TRAINING.read(places.run)
        epochs = len(training.epochs)
        return (
            f"{training.kept}{f' of {epochs}' if epochs > 1 else ''} kept, "
            f"{percent(training.validation.accuracy)} of validation right"
        )
    if step == "evaluate":
        evaluation = EVALUATION.read(places.run / EVALUATION_FOLDER)
        return f"{percent(evaluation.accuracy)} of {evaluation.examples:,} messages right"
    if step == "duel":
        return DUEL.read(places.run / DUEL_FOLDER).verdict
    return str(places.page) if step == "report" else _of_an_earlier_month(step, places)


def _of_an_earlier_month(step: str, places: Places) -> str:
    if step != "publish":
        earlier = EVALUATION.read(places.run / EARLIER / step.split()[1])
        return f"{percent(earlier.accuracy)} right by {earlier.adapter.name}, on the same messages"
    current, new = read_pointer(places.store), read_manifest(places.run / "adapter")
    if current is not None and current.digest == new.digest:
        return f"{new.name} is current in {places.store}"
    return f"refused by the gate; {current.name if current else 'nothing'} stays current"


def accuracy_line(found: EvaluationRecord) -> str:
    """Return how many of 100 messages are labelled right, with the interval."""
    right = round(found.accuracy * found.examples)
    low, high = (round(100 * end) for end in found.accuracy_interval_95)
    return (
        f"Right: {of_100(found.accuracy)} of 100 messages ({right:,} of the {found.examples:,} "
        f"that were kept aside for this test; with others it could be {low} to {high})."
    )


def review_line(found: EvaluationRecord) -> str:
    """Return how many of 100 messages go without review, and how many of those are right."""
    share = found.review.share
    if share >= 1:
        return (
            "By itself: nothing yet. Every message goes to a reviewer, because so few messages "
            "cannot prove how sure is sure enough."
        )
    text = f"By itself: it files {of_100(1 - share)} of 100 and sends {of_100(share)} to review"
    if found.promise is None:
        return f"{text}."
    kept = found.promise.holdout
    return (
        f"{text}. Of those that it files, at least {of_100(found.promise.precision)} in 100 are "
        f"promised to be right; in the test {kept.right:,} of {kept.messages:,} were."
    )


def _publish(judged: Judged, duel: DuelRecord) -> str:
    if judged.verdict.passed:
        return f"Publish: yes, it passes the gate.{_simpler(duel)}"
    failed = [row for row in judged.verdict.criteria if not row.passed]
    names = "; ".join(row.name for row in failed[:3])
    names += f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    if all(row.undecided for row in failed):
        return f"Publish: too few messages to decide ({names}). {failed[0].found}."
    return f"Publish: not yet. It does not pass the gate ({names}). The page says what to do."


def _simpler(duel: DuelRecord) -> str:
    name = duel.servable or duel.recommendation
    if duel.conclusion not in {"better", "not_worse"} or name == "adapter":
        return ""
    return f" A simpler model, {name}, does as well: add --what {name} to publish that one."


def next_commands(places: Places, end: End, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the next commands, each after what it does. Words in capitals are yours. ``words`` are
    those of this command."""
    again = [word for word in words if word != "--again"]
    taxonomy = f"project.taxonomy={places.taxonomy}"
    store = f"model.adapter={places.store if end.passes else places.run / 'adapter'}"
    if end.passes:
        yield "publish it", _command("clerk-trainer publish", places.run, "--store", places.store)
    if end.doubtful or not end.passes:
        first = f"do what the page names first ({end.first})"
        if end.doubtful:
            first = f"decide the {end.doubtful:,} doubtful labels in {places.queue}"
        train = _command("clerk-trainer", *again, "--again")
        yield f"{first}, then {'train again' if end.passes else 'continue'}", train
    if end.lesser is not None:
        # Of the same option given twice the last counts; the earlier one would only confuse.
        kept = [
            word
            for word, following in zip(again, [*again[1:], ""], strict=True)
            if not word.startswith(_PROMISED)
            and not (word == "--set" and following.startswith(_PROMISED))
        ]
        lower = ("--set", f"{_PROMISED}{end.lesser:g}", "--again")
        yield "or let it file more, by the lower promise", _command("clerk-trainer", *kept, *lower)
    yield (
        "label messages from Kafka",
        _command(
            "clerk-worker run",
            *("-s", "kafka.bootstrap_servers=HOST:9092", "-s", "kafka.input_topics=TOPIC"),
            *("-s", store),
        ),
    )
    yield (
        "decide what it is unsure of, in the browser",
        _command("clerk-desk run", "-s", "kafka.bootstrap_servers=HOST:9092", "-s", taxonomy),
    )


def _command(program: str, *words: str | Path) -> str:
    return f"{program} {shlex.join(map(str, words))}"
