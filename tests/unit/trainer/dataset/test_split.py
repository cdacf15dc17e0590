"""The random split: clusters, quotas and stability."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION, Row
from trainer.dataset.split import assign_splits, cap_per_label, shuffle_key

LABELS = {f"k{n:03}": "abc"[n % 3] for n in range(300)}
CLUSTERS = [[key] for key in LABELS]


def assign(
    clusters: Sequence[Sequence[str]],
    labels: Mapping[str, str],
    seed: int = 0,
    holdout: float = 0.15,
    validation: float = 0.08,
) -> dict[str, str]:
    return assign_splits(
        clusters,
        labels,
        validation_share=validation,
        holdout_share=holdout,
        order=lambda key: shuffle_key(seed, key),
    )


def test_the_order_of_clusters_and_keys_changes_nothing() -> None:
    clusters = [[f"k{n:03}", f"k{n + 1:03}"] for n in range(0, 300, 2)]
    shuffled = [list(reversed(cluster)) for cluster in clusters]
    random.Random(0).shuffle(shuffled)
    assert assign(shuffled, LABELS) == assign(clusters, LABELS)
    assert assign(clusters, LABELS, seed=1) != assign(clusters, LABELS)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_cluster_stays_in_one_split_and_the_quotas_are_not_overrun(size: int) -> None:
    keys = list(LABELS)
    clusters = [keys[start : start + size] for start in range(0, 300, size)]
    splits = assign(clusters, LABELS)
    assert all(len({splits[key] for key in cluster}) == 1 for cluster in clusters)
    counts = Counter(splits.values())
    assert 0 < counts[HOLDOUT] <= 46
    assert 0 < counts[VALIDATION] <= 26


def test_new_messages_move_few_of_the_old_ones() -> None:
    more = LABELS | {f"n{n:03}": "abc"[n % 3] for n in range(30)}
    before, after = assign(CLUSTERS, LABELS), assign([[key] for key in more], more)
    moved = [key for key in LABELS if before[key] != after[key]]
    assert len(moved) <= 3 * 5


def test_the_smallest_label_has_one_message_in_each_split() -> None:
    splits = assign([["x"], ["y"], ["z"]], dict.fromkeys("xyz", "a"))
    assert sorted(splits.values()) == [HOLDOUT, TRAIN, VALIDATION]


def test_without_a_hold_out_share_nothing_is_held_out() -> None:
    assert HOLDOUT not in assign(CLUSTERS, LABELS, holdout=0.0).values()


def test_the_cap_takes_the_same_rows_whatever_their_order() -> None:
    rows = [Row(key, key, label, None, "") for key, label in LABELS.items()]
    kept, surplus = cap_per_label(rows, 30, seed=0)
    assert Counter(row.label for row in kept) == {"a": 30, "b": 30, "c": 30}
    assert sorted([*kept, *surplus], key=lambda row: row.id) == rows
    random.Random(3).shuffle(rows)
    again, _ = cap_per_label(rows, 30, seed=0)
    assert set(again) == set(kept)
