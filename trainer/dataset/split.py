"""Which rows go where: training, validation and hold-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainer.dataset.balance import assign_balanced
from trainer.dataset.by_time import (
    NEAR_HOLDOUT,
    Cuts,
    assign_by_time,
    choose_cuts,
    latest_times,
)
from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION, Row
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.together import Key, unite
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes


@dataclass(frozen=True, slots=True)
class Split:
    """Where each key goes, and why: ``of`` is key -> split (or ``NEAR_HOLDOUT``,
    ``NEAR_VALIDATION``), ``units`` what had to stay together, ``cuts`` the moments between the
    parts of a split by time."""

    of: dict[int, str]
    units: Sequence[Sequence[int]]
    cuts: Cuts | None = None


def check_split(settings: PrepareSettings) -> None:
    """Raise BadInput when the way of splitting and the columns do not go together."""
    split, columns = settings.split, settings.columns
    if split is SplitBy.TIME and not columns.time:
        raise BadInput("--split time needs --time-column: when each message came")
    if split is SplitBy.GROUP and not columns.group:
        raise BadInput("--split group needs --group-column: the thread or customer of a message")
    if columns.time and split is not SplitBy.TIME:
        raise BadInput(f"--time-column has no part in --split {split.value}: use --split time")
    if columns.group and split is SplitBy.RANDOM:
        raise BadInput("--group-column has no part in --split random: use --split group or time")
    if split is SplitBy.TIME and settings.holdout:
        raise BadInput(
            "--split time holds out the last part of the input: leave --holdout out, or put its "
            "rows into the input"
        )


def check_shares(validation_share: float, holdout_share: float) -> None:
    """Raise BadInput when the shares cannot be, or leave nothing to train on."""
    if not 0 < validation_share < 1 or not 0 <= holdout_share < 1:
        raise BadInput("--validation-share and --holdout-share lie between 0 and 1")
    if validation_share + holdout_share >= 1:
        raise BadInput("--validation-share and --holdout-share leave nothing to train on")


def split_rows(
    rows: Sequence[Row],
    clusters: Sequence[Sequence[int]],
    given: set[int],
    settings: PrepareSettings,
) -> Split:
    """Split the rows as they came in: decisions have no part in it.

    ``clusters`` are of keys, ``given`` the keys of the user's own hold-out, if there is one: what
    is together with one of them is ``NEAR_HOLDOUT``. Raises BadInput where groups are too few or
    too large, or the time is too short, for three parts.
    """
    grouped = settings.columns.group is not None
    units = unite(clusters, ((row.group, row.key) for row in rows)) if grouped else clusters
    shares = {
        "validation_share": settings.validation_share,
        "holdout_share": 0.0 if settings.holdout else settings.holdout_share,
    }
    if settings.split is SplitBy.TIME:
        times = latest_times(rows)
        cuts = choose_cuts(list(times.values()), **shares)
        return Split(assign_by_time(units, times, cuts), units, cuts)
    bound = {
        key: HOLDOUT if key in given else NEAR_HOLDOUT
        for unit in units
        if not given.isdisjoint(unit)
        for key in unit
    }
    free = [unit for unit in units if unit[0] not in bound]
    labels = _commonest_of(rows, [row.label for row in rows])
    row_of = {row.key: row for row in rows}

    def order(key: int) -> str:
        return shuffle_key(settings.seed, row_of[key].folded)

    if settings.split is SplitBy.RANDOM and not settings.columns.language:
        return Split(bound | assign_splits(free, labels, order=order, **shares), units)
    strata: dict[int, list[tuple[str, ...]]] = {
        key: [(f"label {label}",)] for key, label in labels.items()
    }
    if settings.columns.language:
        languages = _commonest_of(rows, [row.language for row in rows])
        strata = {
            key: [(f"label {label}",), (f"language {languages[key]}",), (label, languages[key])]
            for key, label in labels.items()
        }
    assigned = assign_balanced(free, strata, order=order, **shares)
    if settings.split is SplitBy.GROUP:
        _refuse_few(free, assigned, shares["validation_share"], shares["holdout_share"])
    return Split(bound | assigned, units)


def _refuse_few(
    units: Sequence[Sequence[int]],
    splits: Mapping[int, str],
    validation_share: float,
    holdout_share: float,
) -> None:
    """Raise BadInput where whole units leave a part with less than half of its share."""
    sizes = Counter(splits.values())
    largest = max(map(len, units), default=0)
    for side, share in ((HOLDOUT, holdout_share), (VALIDATION, validation_share)):
        wanted = max(1.0, len(splits) * share)
        if share and sizes[side] < wanted / 2:
            raise BadInput(
                f"by group the {side} part would have {sizes[side]} of {len(splits)} messages "
                f"where {wanted:.0f} are asked for: they are {len(units)} groups, those that "
                f"near-duplicates link counted as one, and the largest has {largest} messages: "
                "choose a finer --group-column, a higher --similarity, or a larger share"
            )


def _commonest_of(rows: Sequence[Row], values: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    came_as: dict[int, list[str]] = {}  # of messages that came more than once
    for row, value in zip(rows, values, strict=True):
        if row.key in found:
            came_as.setdefault(row.key, [found[row.key]]).append(value)
        else:
            found[row.key] = value
    return found | {key: commonest(some) for key, some in came_as.items()}


def assign_splits(
    clusters: Sequence[Sequence[Key]],
    labels: Mapping[Key, str],
    *,
    validation_share: float,
    holdout_share: float,
    order: Callable[[Key], str],
) -> dict[Key, str]:
    """Return key -> split. ``clusters`` are of keys; ``labels`` gives each key's label, ``order``
    its ``shuffle_key``.

    Within a label its clusters are put in the order of a digest of seed and smallest key, and
    fill the hold-out's quota, then validation's, then training; a cluster that no longer fits
    goes to the next. Every label with two messages or more has one held out, when a hold-out is
    asked for, as far as its clusters allow.
    """
    strata: dict[str, list[Sequence[Key]]] = defaultdict(list)
    for cluster in clusters:
        strata[commonest(labels[key] for key in cluster)].append(cluster)
    splits: dict[Key, str] = {}
    for members in strata.values():
        total = sum(len(cluster) for cluster in members)
        room = {
            HOLDOUT: max(1, round(total * holdout_share)) if holdout_share else 0,
            VALIDATION: max(1, round(total * validation_share)),
        }
        for cluster in sorted(members, key=lambda keys: order(min(keys))):
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
    order = [shuffle_key(seed, row.folded) for row in rows]
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
