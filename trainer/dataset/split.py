"""Which rows go where: copies kept on one side, then training, validation and hold-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION, Row
from trainer.dataset.settings import ConflictPolicy, NearDuplicates, PrepareSettings
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes

_GROUPS, _MEMBERS = 5, 6

NEAR_HOLDOUT = "left out, near to the hold-out"
"""Where a message goes that is near to one of the user's own hold-out: into no split."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One message under several labels; ``kept`` is the label it went on with, if any, and
    ``why`` says how that came about."""

    rows: tuple[Row, ...]
    kept: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Deduped:
    """One row for each message, in the order of the input. ``copies`` counts the rows that were
    exact copies with the same label; ``left_out`` the rows that went with a conflict."""

    rows: tuple[Row, ...]
    copies: int
    left_out: int
    conflicts: tuple[Conflict, ...]


def dedupe_exact(
    rows: Sequence[Row], policy: ConflictPolicy, decided: Collection[str] = ()
) -> Deduped:
    """Keep the first of every group of exact copies, and resolve the groups that disagree.

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
            label, why = _resolve(group, policy, decided)
            conflicts.append(Conflict(tuple(group), label, why))
        chosen = [row for row in group if row.label == label]
        kept += chosen[:1]
        copies += len(chosen[1:])
        left_out += len(group) - len(chosen)
    return Deduped(tuple(kept), copies, left_out, tuple(conflicts))


def dedupe_near(
    train: Sequence[Row], clusters: Sequence[Sequence[str]], policy: NearDuplicates
) -> tuple[list[Row], int]:
    """Return the training rows, of each cluster only the first where that was asked for, and how
    many were left out."""
    if policy is NearDuplicates.KEEP:
        return list(train), 0
    cluster_of = _cluster_of(clusters)
    first: dict[int, Row] = {}
    for row in train:
        first.setdefault(cluster_of[row.key], row)
    return list(first.values()), len(train) - len(first)


def find_near_conflicts(
    rows: Sequence[Row], clusters: Sequence[Sequence[str]]
) -> tuple[tuple[Row, ...], ...]:
    """Return the clusters that hold rows of several labels."""
    cluster_of = _cluster_of(clusters)
    members: dict[int, list[Row]] = {}
    for row in rows:
        members.setdefault(cluster_of[row.key], []).append(row)
    return tuple(tuple(some) for some in members.values() if len({row.label for row in some}) > 1)


def count_duplicates(
    own: Deduped,
    held: Deduped,
    clusters: Sequence[Sequence[str]],
    near_conflicts: Sequence[Sequence[Row]],
) -> dict[str, Any]:
    """Count copies, conflicts and clusters for the manifest, of the input and the user's own
    hold-out together."""
    conflicts = own.conflicts + held.conflicts
    sizes = Counter(len(cluster) for cluster in clusters if len(cluster) > 1)
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
    }


def name_examples(
    conflicts: Sequence[Conflict],
    near_conflicts: Sequence[Sequence[Row]],
    clusters: Sequence[Sequence[str]],
    rows: Sequence[Row],
) -> dict[str, list[list[str]]]:
    """Return the first groups of each kind and the largest clusters, a few rows of each by id and
    label: the report shows what is meant, and holds no text."""
    by_key = {row.key: row for row in rows}
    largest = sorted((cluster for cluster in clusters if len(cluster) > 1), key=len, reverse=True)
    return {
        "conflicts": [_names(conflict.rows) for conflict in conflicts[:_GROUPS]],
        "near_conflicts": [_names(some) for some in near_conflicts[:_GROUPS]],
        "largest_clusters": [
            _names([by_key[key] for key in cluster]) for cluster in largest[:_GROUPS]
        ],
    }


def _resolve(
    group: Sequence[Row], policy: ConflictPolicy, decided: Collection[str]
) -> tuple[str | None, str]:
    by_person = {row.label for row in group if row.id in decided}
    if len(by_person) == 1:
        return by_person.pop(), "decided by a person"
    if policy is ConflictPolicy.ERROR:
        sides = ", ".join(f"{row.id} ({row.where}) {row.label!r}" for row in group[:6])
        raise BadInput(
            f"the same message has several labels: {sides}: decide, or choose --conflicts drop"
        )
    if policy is ConflictPolicy.KEEP_MAJORITY:
        (first, most), (_, second) = Counter(row.label for row in group).most_common(2)
        if most > second:
            return first, "the majority"
    return None, "dropped, all sides"


def _names(rows: Sequence[Row]) -> list[str]:
    named = [f"{row.id} ({row.label})" for row in rows[:_MEMBERS]]
    return [*named, f"and {len(rows) - _MEMBERS} more"] if len(rows) > _MEMBERS else named


def _cluster_of(clusters: Sequence[Sequence[str]]) -> dict[str, int]:
    return {key: number for number, cluster in enumerate(clusters) for key in cluster}


def check_shares(validation_share: float, holdout_share: float) -> None:
    """Raise BadInput when the shares cannot be, or leave nothing to train on."""
    if not 0 < validation_share < 1 or not 0 <= holdout_share < 1:
        raise BadInput("--validation-share and --holdout-share lie between 0 and 1")
    if validation_share + holdout_share >= 1:
        raise BadInput("--validation-share and --holdout-share leave nothing to train on")


def split_rows(
    rows: Sequence[Row],
    clusters: Sequence[Sequence[str]],
    given: set[str],
    settings: PrepareSettings,
) -> dict[str, str]:
    """Return key -> split, from the rows as they came in: decisions have no part in it.

    ``clusters`` are of keys, ``given`` the keys of the user's own hold-out, if there is one: what
    is clustered with one of them is ``NEAR_HOLDOUT``.
    """
    came_as: dict[str, list[str]] = {}
    for row in rows:
        came_as.setdefault(row.key, []).append(row.label)
    bound = {
        key: HOLDOUT if key in given else NEAR_HOLDOUT
        for cluster in clusters
        if not given.isdisjoint(cluster)
        for key in cluster
    }
    return bound | assign_splits(
        [cluster for cluster in clusters if cluster[0] not in bound],
        {key: commonest(labels) for key, labels in came_as.items()},
        validation_share=settings.validation_share,
        holdout_share=0.0 if settings.holdout else settings.holdout_share,
        seed=settings.seed,
    )


def assign_splits(
    clusters: Sequence[Sequence[str]],
    labels: Mapping[str, str],
    *,
    validation_share: float,
    holdout_share: float,
    seed: int,
) -> dict[str, str]:
    """Return key -> split. ``clusters`` are of keys; ``labels`` gives each key's label.

    Within a label its clusters are put in the order of a digest of seed and smallest key, and
    fill the hold-out's quota, then validation's, then training; a cluster that no longer fits
    goes to the next. Every label with two messages or more has one held out, when a hold-out is
    asked for, as far as its clusters allow.
    """
    strata: dict[str, list[Sequence[str]]] = defaultdict(list)
    for cluster in clusters:
        strata[commonest(labels[key] for key in cluster)].append(cluster)
    splits: dict[str, str] = {}
    for members in strata.values():
        total = sum(len(cluster) for cluster in members)
        room = {
            HOLDOUT: max(1, round(total * holdout_share)) if holdout_share else 0,
            VALIDATION: max(1, round(total * validation_share)),
        }
        for cluster in sorted(members, key=lambda keys: shuffle_key(seed, min(keys))):
            split = next((name for name, left in room.items() if len(cluster) <= left), TRAIN)
            if split in room:
                room[split] -= len(cluster)
            splits.update(dict.fromkeys(cluster, split))
    return splits


def cap_per_label(
    rows: Sequence[Row], per_label: int | None, *, seed: int
) -> tuple[list[Row], list[Row]]:
    """Return (kept, surplus): at most ``per_label`` rows of each label, chosen by digest, both in
    the order of ``rows``."""
    if per_label is None:
        return list(rows), []
    order = [shuffle_key(seed, row.key) for row in rows]
    kept = set(first_of_each([row.label for row in rows], order, per_label))
    return (
        [row for at, row in enumerate(rows) if at in kept],
        [row for at, row in enumerate(rows) if at not in kept],
    )


def first_of_each(labels: Sequence[str], order: Sequence[str | int], most: int) -> list[int]:
    """Return the indexes, ascending, of at most ``most`` examples of each label: those that come
    first in ``order``, a sort key for each. Of the same order a smaller ``most`` takes a part of
    what a larger one takes: the one rule behind capped datasets and learning curves."""
    taken: Counter[str] = Counter()
    chosen = []
    for at in sorted(range(len(labels)), key=lambda at: order[at]):
        if taken[labels[at]] < most:
            taken[labels[at]] += 1
            chosen.append(at)
    return sorted(chosen)


def commonest(labels: Iterable[str]) -> str:
    """Return the most frequent label, the first by name of several."""
    return min(Counter(labels).items(), key=lambda counted: (-counted[1], counted[0]))[0]


def shuffle_key(seed: int, key: str) -> str:
    """Return a sort key that puts keys in an order that looks random and depends on the seed and
    the keys alone."""
    return sha256_bytes(f"{seed}\n{key}".encode("utf-8", "surrogatepass"))
