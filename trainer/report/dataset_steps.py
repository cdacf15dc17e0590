"""What to do next with a dataset, by what was found: what must come before a training, first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from trainer import numbers
from trainer.check.findings import (
    BALANCE,
    CODES,
    CONFLICTS,
    COUNTS,
    HOLDOUT_SIZE,
    LEAKAGE,
    LENGTHS,
    NAMES,
    SUBLABELS,
    SUSPECTS,
    Finding,
)
from trainer.dataset.folder import HOLDOUT, TRAIN
from trainer.dataset.report import missing_languages
from trainer.report.dataset_facts import DatasetFacts
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
    prepare_again,
)
from trainer.statistics.paired import required_messages, smallest_margin
from trainer.store.rules import GateRules

_PLANNED_DISCORDANCE = 0.05
_MOST_HELD_OUT = 0.4


def steps_section(facts: DatasetFacts) -> Section:
    """Return what to do, in order."""
    lead = (
        "In this order. Commands are whole but for the words in capitals: fill those in. A new "
        "dataset is made each time; the old one stays as it is."
    )
    return next_section(list(_steps(facts)), lead)


def _steps(facts: DatasetFacts) -> Iterator[NextStep]:
    if facts.check is None:
        why = "Nobody has looked for wrong labels, leaks and messages that are cut."
        yield NextStep(BAD, "Have the data checked", why, (_check(facts),))
    yield from _findings(facts)
    yield from _conflict_file(facts)
    yield from _power(facts)
    yield from _languages(facts)
    if facts.openings > MANY_OPENINGS:
        told = f"It has been opened {numbers.times(facts.openings)}"
        how, again = fresh_holdout(facts.record)
        why = f"{told}; each look is a chance to tune to it. {how}"
        yield NextStep(WARN, "Draw a fresh hold-out", why, again)
    yield _train(facts)


_Make = Callable[[DatasetFacts, Finding], tuple[str, ...]]


def _findings(facts: DatasetFacts) -> Iterator[NextStep]:
    """Yield a step for each finding that asks for one, in the order in which they are fixed."""
    for name, (title, make) in _MENDS.items():
        found = facts.finding(name)
        if found is None:
            continue
        unmeasured = name == LENGTHS and found.verdict == "skipped"
        if found.verdict in {"warn", "fail"} or unmeasured:
            tone = BAD if found.verdict == "fail" else WARN
            why = f"{_sentence(found.found)} {found.advice}".strip()
            yield NextStep(tone, title, why, make(facts, found))
    for found in facts.check.findings if facts.check else ():
        if found.name not in _MENDS and found.verdict in {"warn", "fail"}:
            tone = BAD if found.verdict == "fail" else WARN
            yield NextStep(
                tone, found.name.capitalize(), f"{_sentence(found.found)} {found.advice}"
            )


def _decide(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    queue = facts.check.queue if facts.check else "FILE"
    beside = facts.dataset.directory.parent / queue
    path = str(beside) if beside.is_file() else queue
    return prepare_again(facts.record, ("--decisions", path))


def _cap(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    sizes = sorted(facts.per_label(TRAIN).values())
    middle = sizes[len(sizes) // 2] if sizes else 0
    return prepare_again(facts.record, ("--per-label", str(max(1, middle))))


def _more_held_out(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    return larger_share(facts.record, "holdout")


def _lengths(facts: DatasetFacts, found: Finding) -> tuple[str, ...]:
    if found.verdict == "skipped":
        return (_check(facts),)
    wanted = 64 * -(-2 * int(found.figures.get("budget", 512)) // 64)
    return (
        f"{_check(facts)} --max-message-tokens {wanted}",
        *prepare_again(facts.record, ("--strip-quotes",), ("--strip-signatures",)),
    )


def _nothing(_facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    return ()


_MENDS: Mapping[str, tuple[str, _Make]] = {
    LEAKAGE: ("Take the copies apart", _nothing),
    CODES: ("Give every label a code", _nothing),
    COUNTS: ("Label more of the small labels", _nothing),
    NAMES: ("Make the labels easier to tell apart", _nothing),
    SUBLABELS: ("Ask where the finer labels belong", _nothing),
    SUSPECTS: ("Decide on the doubted labels", _decide),
    CONFLICTS: ("Decide on messages with several labels", _decide),
    BALANCE: ("Bring the labels closer together", _cap),
    LENGTHS: ("See to the long messages", _lengths),
    HOLDOUT_SIZE: ("Hold more messages out", _more_held_out),
}
"""What is done about each finding, and the commands for it; in the order of the work: what changes
which rows there are comes before what is drawn from them."""


def _conflict_file(facts: DatasetFacts) -> Iterator[NextStep]:
    extra = (facts.record.get("extra_files") or {}).get("conflicts.csv")
    if not extra:
        return
    path = facts.dataset.directory / "conflicts.csv"
    why = (
        f"{numbers.counted(extra['rows'], 'row')} of one text, or nearly, under several labels "
        f"are in {path}. Fill in its column decision (accept, relabel or drop), then prepare "
        "again: rows that were left out for it come back."
    )
    again = prepare_again(facts.record, ("--decisions", str(path)))
    yield NextStep(WARN, "Settle what has several labels", why, again)


def _power(facts: DatasetFacts) -> Iterator[NextStep]:
    total, margin = facts.size(HOLDOUT), GateRules().non_inferiority_margin
    if not total or smallest_margin(total, _PLANNED_DISCORDANCE) <= margin:
        return
    needed = required_messages(_PLANNED_DISCORDANCE, margin)
    share = (facts.record.get("settings") or {}).get("holdout_share")
    within = numbers.points(margin).removeprefix("+")
    why = (
        f"{numbers.counted(total, 'held-out message')} are too few to show that one adapter is not "
        f"{within} worse than another, which the gate asks for: {numbers.count(needed)} do, where "
        f"they differ on {numbers.percent(_PLANNED_DISCORDANCE, 0)} of the messages. Label more "
        "messages, hold a larger share out, or allow a larger margin with open eyes."
    )
    wanted = (share or 0) * needed / total
    commands = larger_share(facts.record, "holdout", wanted) if wanted <= _MOST_HELD_OUT else ()
    yield NextStep(WARN, "Know what this hold-out cannot tell", why, commands)


def _languages(facts: DatasetFacts) -> Iterator[NextStep]:
    missing = missing_languages(facts.record.get("split") or {})
    if missing:
        told = "; ".join(f"{name} has none in {' and '.join(sides)}" for name, sides in missing)
        why = f"{told}. What is not learnt cannot be known, what is not held out is not judged."
        yield NextStep(WARN, "Add messages in languages that are missing", why)


def _train(facts: DatasetFacts) -> NextStep:
    failed = facts.check is None or facts.check.verdict == "fail"
    why = (
        "Once what stands above is done: wrong labels cost more than settings ever bring."
        if failed
        else "The recipe for a 7B base on a 24 GB card is config/trainer.toml; on a CPU take "
        "config/trainer-cpu.toml."
    )
    folder = facts.dataset.directory
    words = ("--recipe", "RECIPE", "--dataset", folder, "--base", "BASE")
    out = free_folder(Path("runs") / folder.name)
    return NextStep(GOOD, "Train", why, (command("train", *words, "--out", out),))


def _check(facts: DatasetFacts) -> str:
    return check_command(facts.dataset.directory)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
