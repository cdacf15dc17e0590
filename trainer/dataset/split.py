"""Which rows go where: training, validation and hold-out.

Messages that belong together stay on one side (``unite``, ``unite_copies``). At random, or by
group, the largest units go first, each into the part that it fills most evenly
(``assign_balanced``). By time the last part is held out and the one before it is for validation
(``assign_by_time``): a model in service is trained on the past and answers the future, and a random
split, which asks about days that were trained on, overstates it where messages change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import scipy

from trainer.dataset.clean import canonical
from trainer.dataset.folder import HOLDOUT, SPLITS, TRAIN, VALIDATION, Example, Row
from trainer.dataset.settings import PrepareSettings, SplitBy
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


Key = TypeVar("Key", int, str)
"""A message, or copies of it: a number, or its text."""


def unite(clusters: Sequence[Sequence[Key]], grouped: Iterable[tuple[str, Key]]) -> list[list[Key]]:
    """Return the clusters of keys, those united that a group links, and so on: two messages are
    together if a chain of near-duplicates and of common groups leads from one to the other (the
    connected components; union-find, Tarjan 1975).

    ``grouped`` are a group and the key of a message of it, once for each message. A message that
    occurs in two groups links these; an empty group links nothing. Units and their members are in
    the order of the keys.
    """
    sets = scipy.cluster.hierarchy.DisjointSet(key for cluster in clusters for key in cluster)
    for cluster in clusters:
        for key in cluster[1:]:
            sets.merge(cluster[0], key)
    first: dict[str, Key] = {}
    for group, key in grouped:
        if group:
            sets.merge(first.setdefault(group, key), key)
    return sorted(sorted(unit) for unit in sets.subsets())


def unite_copies(
    clusters: Sequence[Sequence[Key]], messages: Iterable[tuple[Key, str]]
) -> list[list[Key]]:
    """Return the clusters of keys, those united that hold one message in two forms: signed,
    quoted below or redacted otherwise (``canonical``), which leaves hardly a word in common where
    what was cut is long. ``messages`` are a key and a message of it each."""
    first: dict[int, Key] = {}
    same: list[tuple[str, Key]] = []
    for key, message in messages:
        # 64 bits for each message, not its text. That two unlike messages among a million get the
        # same is unlikely (3 in 10^8), and then they only come into one part.
        form = int(sha256_bytes(canonical(message).encode("utf-8", "surrogatepass"))[:16], 16)
        if first.setdefault(form, key) != key:
            same += [(str(form), first[form]), (str(form), key)]
    linked = {key for _, key in same}
    united = unite([cluster for cluster in clusters if not linked.isdisjoint(cluster)], same)
    united += [list(cluster) for cluster in clusters if linked.isdisjoint(cluster)]
    return sorted(united, key=lambda cluster: cluster[0])


Strata = tuple[str, ...]
"""The strata that a message belongs to: its label, and its language where there is one."""


def assign_balanced(
    units: Sequence[Sequence[Key]],
    strata: Mapping[Key, Sequence[Strata]],
    *,
    validation_share: float,
    holdout_share: float,
    order: Callable[[Key], str],
) -> dict[Key, str]:
    """Return key -> split: whole units, and parts that are alike in labels and languages.

    The greedy of scikit-learn's ``StratifiedGroupKFold``, with parts of unlike size, and the
    chi-square distance between what a part has and what it should have in place of a variance. For
    units of one message and one stratum it is Sainte-Lague's apportionment.

    ``units`` are of keys, ``strata`` gives each key's; ``order`` gives a sort key for a key, which
    decides between units of one size.

    A stratum of three messages or more is meant to have one in each part. One that is made of two,
    a label in a language, counts where the smallest part should have a message of it; below that
    label and language count one by one.
    """
    shares = {TRAIN: 1 - validation_share - holdout_share, VALIDATION: validation_share}
    if holdout_share:
        shares[HOLDOUT] = holdout_share
    counts = [Counter(s for key in unit for s in strata[key]) for unit in units]
    total: Counter[Strata] = sum(counts, Counter())
    least = min(shares.values())
    counted = {s: n for s, n in total.items() if len(s) == 1 or n * least >= 1}
    wanted = {stratum: _wanted(n, shares) for stratum, n in counted.items()}
    filled: dict[str, Counter[Strata]] = {side: Counter() for side in shares}
    splits: dict[Key, str] = {}
    ranked = sorted(range(len(units)), key=lambda at: (-len(units[at]), order(min(units[at]))))
    for at in ranked:
        count = {s: n for s, n in counts[at].items() if s in wanted}
        losses = {
            side: sum(n * (n / 2 + filled[side][s]) / wanted[s][side] for s, n in count.items())
            for side in shares
        }
        best = min(shares, key=losses.__getitem__)
        filled[best].update(count)
        splits.update(dict.fromkeys(units[at], best))
    return splits


def _wanted(messages: int, shares: Mapping[str, float]) -> dict[str, float]:
    """Return how many messages of a stratum each part should have."""
    if messages < len(shares):
        return {side: messages * share for side, share in shares.items()}
    wanted = {side: max(1.0, messages * share) for side, share in shares.items() if side != TRAIN}
    return wanted | {TRAIN: max(1.0, messages - sum(wanted.values()))}


NEAR_HOLDOUT = "left out, near to the hold-out"
"""Where a message goes that is near to one of the hold-out, or of its group, and may not be in it:
into no split."""

NEAR_VALIDATION = "left out, near to validation"
"""The same of validation."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The first moment of validation and the first of the hold-out, in UTC."""

    validation: datetime
    holdout: datetime

    def side_of(self, moment: datetime) -> str:
        """Return the split that a moment falls into."""
        if moment >= self.holdout:
            return HOLDOUT
        return VALIDATION if moment >= self.validation else TRAIN


def refuse_mixed(rows: Sequence[Row]) -> None:
    """Raise BadInput where some times have an offset from UTC and others have none: they have no
    order."""
    aware = next((row for row in rows if row.time and row.time.tzinfo), None)
    naive = next((row for row in rows if row.time and not row.time.tzinfo), None)
    if aware and naive:
        raise BadInput(
            f"{aware.where} has a time with an offset from UTC and {naive.where} one without: "
            "write all of them with one, such as 2024-05-06T07:08:09Z"
        )


def moment(row: Row) -> datetime:
    """Return a row's time in UTC; one without an offset is taken for UTC."""
    assert row.time is not None
    return row.time.astimezone(UTC) if row.time.tzinfo else row.time.replace(tzinfo=UTC)


def latest_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, the latest first: of exact copies the latest stands for all."""
    return sorted(rows, key=lambda row: (-moment(row).timestamp(), row.id))


def latest_times(rows: Sequence[Row]) -> dict[int, datetime]:
    """Return key -> when the message came last."""
    times: dict[int, datetime] = {}
    for row in rows:
        times[row.key] = max(moment(row), times.get(row.key, moment(row)))
    return times


def choose_cuts(
    times: Sequence[datetime], *, validation_share: float, holdout_share: float
) -> Cuts:
    """Return the cuts that come nearest to the shares; messages of one moment are never parted.

    Raises BadInput where there are fewer than three moments, or where so many messages have the
    same that a part would be less than half or more than twice its share.
    """
    moments = sorted(set(times))
    if len(moments) < 3:
        raise BadInput(
            f"the rows have {len(moments)} different times, and a split by time needs three at "
            "least, in fact many: is this the time at which a message came?"
        )
    order = sorted(times)
    at_holdout = _nearest(moments[2:], order, len(order) * (1 - holdout_share))
    before = [when for when in moments[1:] if when < at_holdout]
    at_validation = _nearest(before, order, len(order) * (1 - holdout_share - validation_share))
    cuts = Cuts(at_validation, at_holdout)
    for side, share in ((HOLDOUT, holdout_share), (VALIDATION, validation_share)):
        held = sum(cuts.side_of(when) == side for when in order)
        wanted = max(1.0, len(order) * share)
        if not wanted / 2 <= held <= wanted * 2:
            raise BadInput(
                f"by time the {side} part would have {held} of {len(order)} messages where "
                f"{wanted:.0f} are asked for: too many have the same time ({len(moments)} "
                "different ones): give times to the second, or another --holdout-share and "
                "--validation-share"
            )
    return cuts


def assign_by_time(
    units: Sequence[Sequence[int]], times: Mapping[int, datetime], cuts: Cuts
) -> dict[int, str]:
    """Return key -> split. A unit is on one side alone, the latest that one of its keys is on;
    its earlier ones are left out (``NEAR_HOLDOUT``, ``NEAR_VALIDATION``), for what is held out
    has to be what came last, and nobody may have learnt from it before."""
    left_out = {HOLDOUT: NEAR_HOLDOUT, VALIDATION: NEAR_VALIDATION}
    splits: dict[int, str] = {}
    for unit in units:
        sides = {key: cuts.side_of(times[key]) for key in unit}
        latest = next(side for side in (HOLDOUT, VALIDATION, TRAIN) if side in sides.values())
        for key, side in sides.items():
            splits[key] = side if side == latest else left_out[latest]
    return splits


def _nearest(moments: Sequence[datetime], order: Sequence[datetime], wanted: float) -> datetime:
    """Return the moment before which most nearly ``wanted`` of the times lie."""
    # order is sorted, and so are the moments: one walk over both.
    best, missed, before = moments[-1], float("inf"), 0
    for candidate in moments:
        while order[before] < candidate:
            before += 1
        if abs(before - wanted) < missed:
            best, missed = candidate, abs(before - wanted)
    return best


_OUT_OF_TIME = "left out, its label was given before the part it is in"


@dataclass(frozen=True, slots=True)
class FilledSplits:
    """Rows and examples by split; ``surplus`` is what ``per_label`` left out, ``near_holdout`` how
    many rows were too like the user's own hold-out, ``counts`` (JSON) what became of the others."""

    rows: dict[str, list[Row]]
    splits: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    near_holdout: int
    counts: dict[str, Any]


def fill_splits(
    rows: Sequence[Row],
    held: Sequence[Row],
    split: Split,
    settings: PrepareSettings,
) -> FilledSplits:
    """Put each row into its split; ``held`` are those of the user's own hold-out."""
    places = (TRAIN, VALIDATION, HOLDOUT, NEAR_HOLDOUT, NEAR_VALIDATION, _OUT_OF_TIME)
    placed: dict[str, list[Row]] = {place: [] for place in places}
    placed[HOLDOUT] += held
    for row in rows:
        placed[_place(row, split)].append(row)
    placed[TRAIN], surplus = cap_per_label(placed[TRAIN], settings.per_label, seed=settings.seed)
    splits = {name: _examples(placed[name]) for name in SPLITS}
    counts: dict[str, Any] = {
        "surplus": dict(Counter(row.label for row in surplus)),
        "splits": {name: len(examples) for name, examples in splits.items()},
    }
    if split.cuts is not None:
        counts["near_validation_removed"] = len(placed[NEAR_VALIDATION])
        counts["out_of_time_removed"] = len(placed[_OUT_OF_TIME])
    near_holdout = len(placed[NEAR_HOLDOUT])
    return FilledSplits(
        {name: placed[name] for name in SPLITS}, splits, _examples(surplus), near_holdout, counts
    )


def _place(row: Row, split: Split) -> str:
    """Return where a row goes. A message that came in two parts of the time is in the later one;
    where people or a majority chose the label of the earlier time, the row is in neither."""
    place = split.of[row.key]
    in_time = split.cuts is None or place not in SPLITS or split.cuts.side_of(moment(row)) == place
    return place if in_time else _OUT_OF_TIME


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Return a split in the order of its ids: the order of lines in the export is no input."""
    return tuple(sorted((row.example for row in rows), key=lambda example: example.id))
