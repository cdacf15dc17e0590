"""The same message more than once: copies, and copies that disagree about the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainer.dataset.row import Row
from trainer.errors import BadInput


class Policy(StrEnum):
    """What becomes of a message that stands there under several labels."""

    DROP = "drop"
    KEEP_MAJORITY = "keep-majority"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One message under several labels; ``kept`` is the label it went on with, if any, and
    ``why`` says how that came."""

    rows: tuple[Row, ...]
    kept: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Unique:
    """One row a message, in the order of the input. ``copies`` counts the rows that were exact
    copies with the same label; ``left_out`` the rows that went with a conflict."""

    rows: tuple[Row, ...]
    copies: int
    left_out: int
    conflicts: tuple[Conflict, ...]


def make_unique(rows: Sequence[Row], policy: Policy, decided: Collection[str] = ()) -> Unique:
    """Keep the first of every group of exact copies, and settle the groups that disagree.

    ``decided`` holds the ids whose label a person confirmed or set: where these agree they win,
    whatever the policy. Else DROP leaves out all sides; KEEP_MAJORITY keeps the most frequent
    label and, where there is none, drops; ERROR raises BadInput that names the rows.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    kept: list[Row] = []
    conflicts: list[Conflict] = []
    copies = left_out = 0
    for group in groups.values():
        label: str | None = group[0].label
        if any(row.label != label for row in group):
            label, why = _settle(group, policy, decided)
            conflicts.append(Conflict(tuple(group), label, why))
        chosen = [row for row in group if row.label == label]
        kept += chosen[:1]
        copies += len(chosen[1:])
        left_out += len(group) - len(chosen)
    return Unique(tuple(kept), copies, left_out, tuple(conflicts))


def _settle(
    group: Sequence[Row], policy: Policy, decided: Collection[str]
) -> tuple[str | None, str]:
    by_person = {row.label for row in group if row.id in decided}
    if len(by_person) == 1:
        return by_person.pop(), "decided by a person"
    if policy is Policy.ERROR:
        sides = ", ".join(f"{row.id} ({row.where}) {row.label!r}" for row in group[:6])
        raise BadInput(
            f"the same message has several labels: {sides}: decide, or choose --conflicts drop"
        )
    if policy is Policy.KEEP_MAJORITY:
        (first, most), (_, second) = Counter(row.label for row in group).most_common(2)
        if most > second:
            return first, "the majority"
    return None, "dropped, all sides"
