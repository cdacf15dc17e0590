"""Copies and near-duplicates: which row of several is kept, and which of them disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from trainer.dataset.folder import Row
from trainer.dataset.near_duplicates import NearGroups
from trainer.dataset.settings import ConflictPolicy

_GROUPS, _MEMBERS = 5, 6


@dataclass(frozen=True, slots=True)
class Conflict:
    """One message under several labels; ``kept`` is the label it went on with, if any, and
    ``why`` says how that came about."""

    rows: tuple[Row, ...]
    kept: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Deduped:
    """One row for each message, in the order of the rows given. ``copies`` counts the rows that
    were exact copies with the same label; ``left_out`` the rows that went with a conflict."""

    rows: tuple[Row, ...]
    copies: int
    left_out: int
    conflicts: tuple[Conflict, ...]


def dedupe_exact(
    rows: Sequence[Row], policy: ConflictPolicy, decided: Collection[str] = ()
) -> Deduped:
    """Keep the first of every group of exact copies, and resolve the groups that disagree. Rows in
    the order of their ids make that the one with the smallest, wherever it stood in the export.

    ``decided`` holds the ids whose label a person confirmed or set: where these agree they win,
    whatever the policy. Else DROP leaves out all sides; KEEP_MAJORITY keeps the most frequent
    label and, where there is none, drops.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    kept: list[Row] = []
    conflicts: list[Conflict] = []
    copies = left_out = 0
    for group in groups.values():
        label: str | None = group[0].label
        if any(row.label != label for row in group):
            label, why = _resolve(group, policy, decided)
            conflicts.append(Conflict(tuple(group), label, why))
        chosen = [row for row in group if row.label == label]
        kept += chosen[:1]
        copies += len(chosen[1:])
        left_out += len(group) - len(chosen)
    return Deduped(tuple(kept), copies, left_out, tuple(conflicts))


def find_near_conflicts(
    rows: Sequence[Row], clusters: Sequence[Sequence[int]]
) -> tuple[tuple[Row, ...], ...]:
    """Return the clusters that hold rows of several labels."""
    cluster_of = _cluster_of([cluster for cluster in clusters if len(cluster) > 1])
    members: dict[int, list[Row]] = {}
    for row in rows:
        if row.key in cluster_of:
            members.setdefault(cluster_of[row.key], []).append(row)
    return tuple(tuple(some) for some in members.values() if len({row.label for row in some}) > 1)


def count_duplicates(
    own: Deduped,
    held: Deduped,
    near: NearGroups,
    near_conflicts: Sequence[Sequence[Row]],
) -> dict[str, Any]:
    """Count copies, conflicts and clusters for the manifest, of the input and the user's own
    hold-out together."""
    conflicts = own.conflicts + held.conflicts
    sizes = Counter(len(cluster) for cluster in near.clusters if len(cluster) > 1)
    return {
        "exact_duplicates_removed": own.copies + held.copies,
        "conflicts": {
            "messages": len(conflicts),
            "rows_left_out": own.left_out + held.left_out,
            "resolved": dict(Counter(conflict.why for conflict in conflicts)),
        },
        "near_clusters": {
            "clusters": sum(sizes.values()),
            "messages": sum(size * count for size, count in sizes.items()),
            "sizes": {str(size): sizes[size] for size in sorted(sizes)},
            "with_several_labels": len(near_conflicts),
        },
        "templates": {
            "templates": len(near.templates),
            "messages": sum(map(len, near.templates)),
            "largest": max(map(len, near.templates), default=0),
        },
    }


def name_examples(
    conflicts: Sequence[Conflict],
    near_conflicts: Sequence[Sequence[Row]],
    near: NearGroups,
    rows: Sequence[Row],
) -> dict[str, list[list[str]]]:
    """Return the first groups of each kind and the largest clusters and templates, a few rows of
    each by id and label: the report shows what is meant, and holds no text."""
    clusters, templates = _largest(near.clusters), _largest(near.templates)
    wanted = {key for some in (*clusters, *templates) for key in some}
    by_key = {row.key: row for row in rows if row.key in wanted}
    return {
        "conflicts": [_names(conflict.rows) for conflict in conflicts[:_GROUPS]],
        "near_conflicts": [_names(some) for some in near_conflicts[:_GROUPS]],
        "largest_clusters": [_names([by_key[key] for key in some]) for some in clusters],
        "largest_templates": [_names([by_key[key] for key in some]) for some in templates],
    }


def _largest(groups: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return the largest groups of more than one, the first of equals."""
    several = (group for group in groups if len(group) > 1)
    return nsmallest(_GROUPS, several, key=lambda group: -len(group))


def _resolve(
    group: Sequence[Row], policy: ConflictPolicy, decided: Collection[str]
) -> tuple[str | None, str]:
    by_person = {row.label for row in group if row.id in decided}
    if len(by_person) == 1:
        return by_person.pop(), "decided by a person"
    if policy is ConflictPolicy.KEEP_MAJORITY:
        (first, most), (_, second) = Counter(row.label for row in group).most_common(2)
        if most > second:
            return first, "the majority"
    return None, "dropped, all sides"


def _names(rows: Sequence[Row]) -> list[str]:
    named = [f"{row.id} ({row.label})" for row in rows[:_MEMBERS]]
    return [*named, f"and {len(rows) - _MEMBERS} more"] if len(rows) > _MEMBERS else named


def _cluster_of(clusters: Sequence[Sequence[int]]) -> dict[int, int]:
    return {key: number for number, cluster in enumerate(clusters) for key in cluster}
