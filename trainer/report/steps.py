"""What to do next: steps in order, each with why and the commands that do it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.report.records import Section

GOOD, WARN, BAD = "good", "warn", "bad"

_PLACEHOLDERS = frozenset({"BASE", "FILE", "NEW", "STORE", "RECIPE", "..."})


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
    return Section("next", "What to do next", {"steps": ranked, "lead": lead})


def command(name: str, *words: str | Path) -> str:
    """Return a command line of the trainer, quoted for a shell where a word needs it."""
    given = [word if word in _PLACEHOLDERS else shlex.quote(str(word)) for word in words]
    return " ".join(["clerk-trainer", name, *given])


def prepare_again(record: Mapping[str, Any], *more: str | Path) -> str:
    """Return the command that prepares a dataset anew as its manifest says it was, with ``more``.

    Where an option's value is not in the manifest (the folder of the export, the taxonomy's file),
    the reader fills it in. An option of ``more`` takes the place of the same one of before.
    """
    settings = record.get("settings") or {}
    given = [
        *_sources(record),
        *("--taxonomy", "FILE"),
        *_columns(record),
        *_flags(settings),
        *_files(record),
    ]
    again = {str(word) for word in more if str(word).startswith("--")} - {"--decisions"}
    kept: list[str | Path] = []
    at = 0
    while at < len(given):
        size = 1 if at + 1 >= len(given) or given[at + 1].startswith("--") else 2
        if given[at] not in again:
            kept += given[at : at + size]
        at += size
    return command("prepare", *kept, *more, "--out", "NEW")


def _sources(record: Mapping[str, Any]) -> Iterable[str]:
    for source in record.get("sources") or ():
        yield from ("--input", str(source["name"]))
    held = record.get("holdout_source")
    if held:
        yield from ("--holdout", str(held["name"]))


_FOUND_BY_NAME = frozenset({"message", "label", "id", "sublabel"})
"""Columns that ``prepare`` takes unasked where they have these names."""


def _columns(record: Mapping[str, Any]) -> Iterable[str]:
    first: Mapping[str, Any] = next(iter(record.get("sources") or ()), {})
    guessed = set(first.get("guessed_columns") or ())
    for field, name in (first.get("columns") or {}).items():
        is_found = field in guessed or (field in _FOUND_BY_NAME and name == field)
        if name and not is_found:
            yield from (f"--{field.replace('_', '-')}-column", str(name))


def _files(record: Mapping[str, Any]) -> Iterable[str]:
    if label_map := record.get("label_map"):
        yield from ("--label-map", str(label_map["name"]))
    for file in (record.get("decisions") or {}).get("files") or ():
        yield from ("--decisions", str(file["name"]))


_USUAL = {
    "split": "random",
    "empty": "error",
    "too_long": "error",
    "max_message_bytes": 1 << 20,
    "conflicts": "drop",
    "near_duplicates": "keep",
    "similarity": 0.7,
    "validation_share": 0.08,
    "holdout_share": 0.15,
    "minimum_per_label": 10,
    "seed": 0,
    "per_label": None,
}
"""What ``prepare`` does where it is not told: left out of the command."""


def _flags(settings: Mapping[str, Any]) -> Iterable[str]:
    for name in ("strip_quotes", "strip_signatures", "redact"):
        if settings.get(name):
            yield f"--{name.replace('_', '-')}"
    for name, usual in _USUAL.items():
        value = settings.get(name, usual)
        if value not in (usual, None):
            yield from (f"--{name.replace('_', '-')}", str(value))
