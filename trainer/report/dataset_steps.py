"""Recommended next steps for a dataset; steps that must come before a training are first."""

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
from trainer.commands import command
from trainer.dataset.folder import HOLDOUT, TRAIN
from trainer.dataset.report import missing_languages
from trainer.report.dataset_facts import DatasetFacts
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
    prepare_again,
    show_steps,
)
from trainer.statistics.paired import required_messages, smallest_margin
from trainer.store.rules import GateRules

_PLANNED_DISCORDANCE = 0.05


def steps_section(facts: DatasetFacts) -> Content:
    """Return the recommended steps, in order."""
    lead = (
        "In this order. Replace the words in capitals in a command. Each command makes a new "
        "dataset; the old one does not change."
    )
    return show_steps(_steps(facts), lead)


def _steps(facts: DatasetFacts) -> Iterator[NextStep]:
    if facts.check is None:
        why = "The check finds wrong labels, copies across splits, and messages that are too long."
        yield NextStep(BAD, "Check the data", why, (_check(facts),))
    yield from _findings(facts)
    yield from _conflict_file(facts)
    yield from _power(facts)
    yield from _languages(facts)
    if facts.openings > MANY_OPENINGS:
        how, again = fresh_holdout(facts.record)
        why = (
            f"The hold-out has been opened {numbers.times(facts.openings)}. Every opening can bias "
            f"later choices towards it. {how}"
        )
        yield NextStep(WARN, "Draw a new hold-out", why, again)
    yield _train(facts)


_Make = Callable[[DatasetFacts, Finding], tuple[str, ...]]


def _findings(facts: DatasetFacts) -> Iterator[NextStep]:
    """Yield a step for each finding that needs one, in the order of ``_FIXES``."""
    findings = {found.name: found for found in (facts.check.findings if facts.check else ())}
    others = (name for name in findings if name not in _FIXES)
    for name in (*(name for name in _FIXES if name in findings), *others):
        found = findings[name]
        unmeasured = name == LENGTHS and found.verdict == "skipped"
        if found.verdict in {"warn", "fail"} or unmeasured:
            title, make = _FIXES.get(name, (name.capitalize(), None))
            tone = BAD if found.verdict == "fail" else WARN
            why = f"{found.found[:1].upper()}{found.found[1:].rstrip('.')}. {found.advice}".strip()
            yield NextStep(tone, title, why, make(facts, found) if make else ())


def _decide(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    queue = facts.check.queue if facts.check else "FILE"
    path = facts.dataset.directory.parent / queue
    return prepare_again(facts.record, ("--decisions", str(path) if path.is_file() else queue))


def _cap(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    sizes = sorted(facts.per_label(TRAIN).values())
    # The median, so that half of the labels keep all their messages.
    middle = sizes[len(sizes) // 2] if sizes else 0
    return prepare_again(facts.record, ("--per-label", str(max(1, middle))))


def _more_held_out(facts: DatasetFacts, _found: Finding) -> tuple[str, ...]:
    return larger_share(facts.record, "holdout")


def _lengths(facts: DatasetFacts, found: Finding) -> tuple[str, ...]:
    if found.verdict == "skipped":
        return (f"{_check(facts)} --base BASE",)
    wanted = 64 * -(-2 * int(found.figures.get("budget", 512)) // 64)
    return (
        f"{_check(facts)} --max-message-tokens {wanted}",
        *prepare_again(facts.record, ("--strip-quotes",), ("--strip-signatures",)),
    )


# In the order of the work: steps that change which rows there are come before steps that draw from
# them.
_FIXES: Mapping[str, tuple[str, _Make | None]] = {
    LEAKAGE: ("Remove copies across splits", None),
    CODES: ("Give every label a code", None),
    COUNTS: ("Label more messages of small labels", None),
    NAMES: ("Make label names easier to distinguish", None),
    SUBLABELS: ("Clarify where the finer labels belong", None),
    SUSPECTS: ("Decide on the doubtful labels", _decide),
    CONFLICTS: ("Decide on messages with several labels", _decide),
    BALANCE: ("Balance the labels", _cap),
    LENGTHS: ("Shorten the long messages", _lengths),
    HOLDOUT_SIZE: ("Hold out more messages", _more_held_out),
}


def _conflict_file(facts: DatasetFacts) -> Iterator[NextStep]:
    extra = (facts.record.get("extra_files") or {}).get("conflicts.csv")
    if not extra:
        return
    path = facts.dataset.directory / "conflicts.csv"
    why = (
        f"{path} has {numbers.counted(extra['rows'], 'row')} of copies and near-copies with "
        "several labels. Fill in the column decision (accept, relabel or drop) and prepare again; "
        "rows that were left out because of the conflict come back."
    )
    again = prepare_again(facts.record, ("--decisions", str(path)))
    yield NextStep(WARN, "Resolve conflicting labels", why, again)


def _power(facts: DatasetFacts) -> Iterator[NextStep]:
    total, margin = facts.size(HOLDOUT), GateRules().non_inferiority_margin
    if not total or smallest_margin(total, _PLANNED_DISCORDANCE) <= margin:
        return
    needed = required_messages(_PLANNED_DISCORDANCE, margin)
    share = (facts.record.get("settings") or {}).get("holdout_share")
    why = (
        f"{numbers.counted(total, 'held-out message')} are too few to show that one adapter is not "
        f"{numbers.unsigned(margin)} worse than another, which the gate requires. It takes "
        f"{numbers.count(needed)} if the two differ on {numbers.percent(_PLANNED_DISCORDANCE, 0)} "
        "of the messages. Label more messages, hold out a larger share, or accept a larger margin."
    )
    commands = larger_share(facts.record, "holdout", (share or 0) * needed / total)
    yield NextStep(WARN, "The hold-out is too small for the gate's margin", why, commands)


def _languages(facts: DatasetFacts) -> Iterator[NextStep]:
    missing = missing_languages(facts.record.get("split") or {})
    if missing:
        gaps = "; ".join(f"{name} has none in {' and '.join(sides)}" for name, sides in missing)
        why = f"{gaps}. Without training messages the model cannot learn a language; without"
        why += " held-out messages its accuracy in that language stays unknown."
        yield NextStep(WARN, "Add messages in missing languages", why)


def _train(facts: DatasetFacts) -> NextStep:
    failed = facts.check is None or facts.check.verdict == "fail"
    why = (
        "After the steps above: fixing wrong labels gains more accuracy than any training setting."
        if failed
        else "Use config/trainer.toml for a 7B base on a 24 GB GPU, config/trainer-cpu.toml on a "
        "CPU, or config/trainer-encoder.toml for an encoder."
    )
    folder = facts.dataset.directory
    words = ("--recipe", "RECIPE", "--dataset", folder)
    out = free_folder(Path("runs") / folder.name)
    return NextStep(GOOD, "Train", why, (command("train", *words, "--out", out),))


def _check(facts: DatasetFacts) -> str:
    return check_command(facts.dataset.directory)
