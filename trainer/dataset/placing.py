"""Rows and clusters of near-duplicates on the sides of the split."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.dataset.row import Row
from trainer.dataset.settings import NearDuplicates, PrepareSettings
from trainer.dataset.split import HOLDOUT, assign_sides, commonest

NEAR = "left out, near to the hold-out"
"""The side of a message that is near to one of the user's own hold-out."""


def place(
    rows: Sequence[Row],
    clusters: Sequence[Sequence[str]],
    given: set[str],
    settings: PrepareSettings,
) -> dict[str, str]:
    """Return key -> side, from the rows as they came in: decisions have no part in it.

    ``clusters`` are of keys, ``given`` the keys of the user's own hold-out, if there is one: what
    hangs together with one of them is on the side ``NEAR``.
    """
    came_as: dict[str, list[str]] = {}
    for row in rows:
        came_as.setdefault(row.key, []).append(row.label)
    bound = {
        key: HOLDOUT if key in given else NEAR
        for cluster in clusters
        if not given.isdisjoint(cluster)
        for key in cluster
    }
    return bound | assign_sides(
        [cluster for cluster in clusters if cluster[0] not in bound],
        {key: commonest(labels) for key, labels in came_as.items()},
        validation_share=settings.validation_share,
        holdout_share=0.0 if settings.holdout else settings.holdout_share,
        seed=settings.seed,
    )


def thin(
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


def _cluster_of(clusters: Sequence[Sequence[str]]) -> dict[str, int]:
    return {key: number for number, cluster in enumerate(clusters) for key in cluster}
