"""What to do next: steps in order, each with why and the commands that do it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.report.records import Drawn, Section

GOOD, WARN, BAD = "good", "warn", "bad"

_PLACEHOLDERS = frozenset({"BASE", "FILE", "NEW", "STORE", "RECIPE"})

_REPEATABLE = frozenset({"--input", "--decisions", "--earlier"})
"""Options of ``prepare`` that are added to those of before; others take the place of their own."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to do. ``tone`` is bad where nothing should be deployed, or trained, before it is
    done, warn where it is worth doing, good where it is the way on. ``commands`` are whole lines of
    a shell, words in capitals in them for the reader to fill in."""

    tone: str
    title: str
    why: str
    commands: tuple[str, ...] = ()


def next_section(steps: Sequence[NextStep], lead: str) -> Section:
    """Return the section of the steps: those that must come first, then the rest, as given."""
    order = (BAD, WARN, GOOD)
    ranked = sorted(steps, key=lambda step: order.index(step.tone))
    steps_drawn = Drawn("next", {"steps": ranked})
    return Section("next", "What to do next", [lead, steps_drawn])


def command(name: str, *words: str | Path) -> str:
    """Return a command line of the trainer, quoted for a shell where a word needs it."""
    given = [word if word in _PLACEHOLDERS else shlex.quote(str(word)) for word in words]
    return " ".join(["clerk-trainer", name, *given])


def prepare_again(record: Mapping[str, Any], *changes: Sequence[str]) -> tuple[str, ...]:
    """Return the command that prepares a dataset again, by the options that its manifest records,
    with ``changes``: options, each with its value if it takes one.

    There is none for a dataset that ``prepare`` did not make, whose options nobody knows, and none
    where nothing would change.
    """
    before = [list(option) for option in record.get("options") or ()]
    new = [list(map(str, change)) for change in changes if list(map(str, change)) not in before]
    if not before or not new:
        return ()
    replaced = {option[0] for option in new} - _REPEATABLE
    kept = [option for option in before if option[0] not in replaced]
    words = [word for option in (*kept, *new) for word in option]
    return (command("prepare", *words, "--out", "NEW"),)


def fresh_holdout(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return how a dataset gets another hold-out, in a sentence, and the command that draws it:
    none where the time, or a file of the user's, decides what is held out."""
    if record.get("holdout_source"):
        return "Give --holdout another file, of messages that nobody has measured on yet.", ()
    if (record.get("split") or {}).get("by") == "time":
        return "Prepare an export that holds later messages: the last ones are held out.", ()
    seed = int((record.get("settings") or {}).get("seed", 0)) + 1
    return "Another seed draws another one.", prepare_again(record, ("--seed", str(seed)))


def larger_share(
    record: Mapping[str, Any], part: str, wanted: float | None = None, *, most: float = 0.4
) -> tuple[str, ...]:
    """Return the command that gives ``part`` ("holdout", "validation") a share of ``wanted``, by
    default twice what it has, at most ``most``; none where that is not more than it has."""
    share = (record.get("settings") or {}).get(f"{part}_share")
    if not share:
        return ()
    wanted = math.ceil(100 * min(most, 2 * share if wanted is None else wanted)) / 100
    if wanted <= share:
        return ()
    return prepare_again(record, (f"--{part}-share", f"{wanted:g}"))


def check_command(dataset: Path, base: str = "BASE") -> str:
    """Return the command that checks a dataset; what somebody wrote into its queue is kept."""
    folder = dataset.resolve()
    there = folder.with_name(f"{folder.name}-review.csv").is_file()
    return command("check", dataset, "--base", base, *(("--update",) if there else ()))


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or where there is something of that name the first free name after it:
    ``run-2``, ``run-3``."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
