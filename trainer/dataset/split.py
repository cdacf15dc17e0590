"""Which rows go where: training, validation and hold-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION, Row
from trainer.dataset.settings import PrepareSettings
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes

NEAR_HOLDOUT = "left out, near to the hold-out"
"""Where a message goes that is near to one of the user's own hold-out: into no split."""


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
