"""Split rows into training, validation and hold-out.

Messages that belong together stay in one split (``unite``, ``unite_copies``). A random split fills
each label's quotas in a seeded order (``assign_splits``). With groups or languages the largest
units go first, each into the split that balances best (``assign_balanced``). By time, the last
period is held out and the one before it is for validation (``assign_by_time``): a model in service
is trained on the past and answers the future, and a random split overstates its accuracy if
messages change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import scipy

from trainer.dataset.clean import canonical
from trainer.dataset.folder import HOLDOUT, MANIFEST, SPLITS, TRAIN, VALIDATION, Example, Row
from trainer.dataset.near_duplicates import Passages, group_near, mask
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY
from worker.contract.digest import sha256_bytes


@dataclass(frozen=True, slots=True)
class Split:
    """``of`` maps keys to a split, ``NEAR_HOLDOUT`` or ``NEAR_VALIDATION``; ``units`` are the keys
    that had to stay together; ``cuts`` are the boundaries of a split by time."""

    of: dict[int, str]
    units: Sequence[Sequence[int]]
    cuts: Cuts | None = None


def check_split(settings: PrepareSettings) -> None:
    """Raise BadInput if ``--split`` and the columns do not fit together."""
    split, columns = settings.split, settings.columns
    if split is SplitBy.TIME and not columns.time:
        raise BadInput("--split time needs --time-column: the time of each message")
    if split is SplitBy.GROUP and not columns.group:
        raise BadInput("--split group needs --group-column: the thread or customer of a message")
    if columns.time and split is not SplitBy.TIME:
        raise BadInput(f"--time-column has no effect with --split {split.value}: use --split time")
    if columns.group and split is SplitBy.RANDOM:
        raise BadInput("--group-column has no effect with --split random: use group or time")
    if split is SplitBy.TIME and settings.given_holdout:
        raise BadInput(
            "--split time holds out the last period of the input: leave --holdout and --after out, "
            "or add their rows to the input"
        )
    if settings.after_dataset and not (settings.after_dataset / MANIFEST).is_file():
        raise BadInput(
            f"--after {settings.after}: has no {MANIFEST}: name the folder that prepare made, or "
            "that of clerk-trainer start"
        )
    if settings.after and settings.holdout:
        raise BadInput("--after keeps the hold-out of the earlier dataset: leave --holdout out")


def check_shares(validation_share: float, holdout_share: float) -> None:
    """Raise BadInput for impossible shares, or shares that leave nothing to train on."""
    if not 0 < validation_share < 1 or not 0 <= holdout_share < 1:
        raise BadInput("--validation-share and --holdout-share must be between 0 and 1")
    if validation_share + holdout_share >= 1:
        raise BadInput(
            "--validation-share and --holdout-share leave nothing to train on: lower them"
        )


def split_rows(
    rows: Sequence[Row],
    clusters: Sequence[Sequence[int]],
    given: set[int],
    settings: PrepareSettings,
    learned: frozenset[int] = frozenset(),
) -> Split:
    """Split the rows as they were exported, before decisions, so that a decision moves no message.

    ``clusters`` are of keys. ``given`` are the keys of the ``--holdout`` file, if any: keys in one
    unit with them are ``NEAR_HOLDOUT``. ``learned`` are those that an earlier dataset learned or
    validated with: nothing in one unit with them is held out. Raises BadInput if groups are too
    few or too large, or the times too few, for three splits.
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
    fresh = [unit for unit in free if learned.isdisjoint(unit)]
    old = [unit for unit in free if not learned.isdisjoint(unit)]
    labels = _commonest_of(rows, [row.label for row in rows])
    row_of = {row.key: row for row in rows}

    def order(key: int) -> str:
        return shuffle_key(settings.seed, row_of[key].folded)

    def assign(by: Callable[..., dict[int, str]], strata: Mapping[int, Any]) -> dict[int, str]:
        found = by(fresh, strata, order=order, **shares)
        if old:
            found |= by(old, strata, order=order, **{**shares, "holdout_share": 0.0})
        return found

    if settings.split is SplitBy.RANDOM and not settings.columns.language:
        return Split(bound | assign(assign_splits, labels), units)
    strata: dict[int, list[tuple[str, ...]]] = {
        key: [(f"label {label}",)] for key, label in labels.items()
    }
    if settings.columns.language:
        languages = _commonest_of(rows, [row.language for row in rows])
        strata = {
            key: [(f"label {label}",), (f"language {languages[key]}",), (label, languages[key])]
            for key, label in labels.items()
        }
    assigned = assign(assign_balanced, strata)
    if settings.split is SplitBy.GROUP and not old:
        _refuse_few(free, assigned, shares["validation_share"], shares["holdout_share"])
    return Split(bound | assigned, units)


def _refuse_few(
    units: Sequence[Sequence[int]],
    splits: Mapping[int, str],
    validation_share: float,
    holdout_share: float,
) -> None:
    """Raise BadInput if whole units leave a split with less than half of its share."""
    sizes = Counter(splits.values())
    largest = max(map(len, units), default=0)
    for side, share in ((HOLDOUT, holdout_share), (VALIDATION, validation_share)):
        wanted = max(1.0, len(splits) * share)
        if share and sizes[side] < wanted / 2:
            raise BadInput(
                f"the {side} split by group would have {sizes[side]} of {len(splits)} messages "
                f"instead of {wanted:.0f}: there are {len(units)} groups, counting groups that "
                f"near-duplicates link as one, and the largest has {largest} messages: choose a "
                "finer --group-column or a larger share"
            )


def _commonest_of(rows: Sequence[Row], values: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    came_as: dict[int, list[str]] = {}  # only for messages that occur more than once
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
    """Return key -> split. ``clusters`` are of keys; ``labels`` maps keys to labels, ``order``
    returns a key's ``shuffle_key``.

    Within each label, clusters in the order of their first key's shuffle key fill the hold-out's
    quota, then validation's, then training; a cluster that no longer fits goes to the next. Each
    label has at least one message in the hold-out and in validation, if its clusters allow it.
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
    """Return (kept, surplus), at most ``per_label`` rows of each label, chosen by digest; both in
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
    """Return the indexes, ascending, of at most ``most`` examples of each label: those with the
    smallest sort keys in ``order``. A smaller ``most`` selects a subset of a larger one's, so that
    the steps of a learning curve are nested."""
    taken: Counter[str] = Counter()
    chosen = []
    for at in sorted(range(len(labels)), key=lambda at: order[at]):
        if taken[labels[at]] < most:
            taken[labels[at]] += 1
            chosen.append(at)
    return sorted(chosen)


def commonest(labels: Iterable[str]) -> str:
    """Return the most frequent label; in a tie, the first by name."""
    return min(Counter(labels).items(), key=lambda counted: (-counted[1], counted[0]))[0]


def shuffle_key(seed: int, key: str) -> str:
    """Return a sort key that shuffles: the order depends on the seed and the keys only."""
    return sha256_bytes(f"{seed}\n{key}".encode("utf-8", "surrogatepass"))


Key = TypeVar("Key", int, str)
"""A message and its copies: a number, or the text."""


def unite(clusters: Sequence[Sequence[Key]], grouped: Iterable[tuple[str, Key]]) -> list[list[Key]]:
    """Unite clusters of keys that share a group: two messages are together if a chain of
    near-duplicates and common groups links them (connected components; union-find, Tarjan 1975).

    ``grouped`` holds (group, key) for each message. A message in two groups links them; an empty
    group links nothing. Units and their members are sorted.
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
    clusters: Sequence[Sequence[Key]],
    messages: Iterable[tuple[Key, str]],
    passages: Passages | None = None,
) -> list[list[Key]]:
    """Unite clusters of keys that hold the same ``canonical`` message, or near ones. ``messages``
    are pairs of key and message, ``passages`` those that recur in them, if they are known."""
    # Two copies with different signatures, quotations or redactions may share hardly a shingle.
    first: dict[int, Key] = {}
    same: list[tuple[str, Key]] = []
    own: list[Key] = []
    texts: list[str] = []  # two lists, because a million pairs take 70 MB more
    cut = False
    for key, message in messages:
        text = canonical(message)
        # 64 bits instead of the text, to save memory. A collision among a million messages (3 in
        # 10^8) only puts two messages into one split.
        form = int(sha256_bytes(text.encode("utf-8", "surrogatepass"))[:16], 16)
        if form not in first:
            own.append(key)
            texts.append(message)
            folded = message.casefold()
            cut = cut or (text != folded and mask(text) != mask(folded))
        if first.setdefault(form, key) != key:
            same += [(str(form), first[form]), (str(form), key)]
    if cut:  # otherwise ``clusters`` has them
        near = group_near(
            len(own),
            lambda at: canonical(texts[at]),
            similarity=SIMILARITY,
            passages=passages,
        ).clusters
        same += [
            (f"near {number}", own[at])
            for number, cluster in enumerate(near)
            if len(cluster) > 1
            for at in cluster
        ]
    linked = {key for _, key in same}
    united = unite([cluster for cluster in clusters if not linked.isdisjoint(cluster)], same)
    united += [list(cluster) for cluster in clusters if linked.isdisjoint(cluster)]
    return sorted(united, key=lambda cluster: cluster[0])


Strata = tuple[str, ...]
"""A stratum: a label, a language, or both."""


def assign_balanced(
    units: Sequence[Sequence[Key]],
    strata: Mapping[Key, Sequence[Strata]],
    *,
    validation_share: float,
    holdout_share: float,
    order: Callable[[Key], str],
) -> dict[Key, str]:
    """Return key -> split: whole units, in splits with similar shares of labels and languages.

    ``units`` are of keys, ``strata`` maps keys to their strata; ``order`` returns a sort key, which
    decides between units of one size. A stratum of three or more messages should have one in each
    split. A label in a language counts as a stratum if the smallest split should have a message of
    it; otherwise only the label and the language count.
    """
    # The greedy algorithm of scikit-learn's StratifiedGroupKFold, for splits of different sizes and
    # with the chi-square distance to the wanted counts instead of a variance. For units of one
    # message and one stratum it is Sainte-Lague's apportionment.
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
    """Return how many of a stratum's messages each split should have."""
    if messages < len(shares):
        return {side: messages * share for side, share in shares.items()}
    wanted = {side: max(1.0, messages * share) for side, share in shares.items() if side != TRAIN}
    return wanted | {TRAIN: max(1.0, messages - sum(wanted.values()))}


NEAR_HOLDOUT = "left out, near to the hold-out"
"""The place of a message that is in no split, since it is in one unit with a hold-out message."""

NEAR_VALIDATION = "left out, near to validation"
"""The same for validation."""

TOO_LATE = "left out, a teacher's label in a period that people judge"
"""The place of a message that is neither learned, since it is later than what is, nor judges."""

POOL = "set aside, with a teacher's label"
"""The place of a message that is not learned, since only the teacher labelled it: see
``trainer.dataset.people``."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The first moments of validation and of the hold-out, in UTC."""

    validation: datetime
    holdout: datetime

    def side_of(self, moment: datetime) -> str:
        """Return the split of a moment."""
        if moment >= self.holdout:
            return HOLDOUT
        return VALIDATION if moment >= self.validation else TRAIN


def refuse_mixed(rows: Sequence[Row]) -> None:
    """Raise BadInput if some times have an offset from UTC and others have none."""
    aware = next((row for row in rows if row.time and row.time.tzinfo), None)
    naive = next((row for row in rows if row.time and not row.time.tzinfo), None)
    if aware and naive:
        raise BadInput(
            f"{aware.where} has a time with an offset from UTC and {naive.where} one without, so "
            "they cannot be ordered: write all with one, such as 2024-05-06T07:08:09Z"
        )


def moment(row: Row) -> datetime:
    """Return a row's time in UTC, which is also assumed for times without an offset."""
    assert row.time is not None
    return row.time.astimezone(UTC) if row.time.tzinfo else row.time.replace(tzinfo=UTC)


def latest_first(rows: Sequence[Row]) -> list[Row]:
    """Sort rows by time, latest first, so that the latest of several exact copies is kept."""
    return sorted(rows, key=lambda row: (-moment(row).timestamp(), row.id))


def latest_times(rows: Sequence[Row]) -> dict[int, datetime]:
    """Return key -> the message's latest time."""
    times: dict[int, datetime] = {}
    for row in rows:
        times[row.key] = max(moment(row), times.get(row.key, moment(row)))
    return times


def choose_cuts(
    times: Sequence[datetime], *, validation_share: float, holdout_share: float
) -> Cuts:
    """Return the cuts nearest to the shares; messages with the same time stay together.

    Raises BadInput for fewer than three different times, or if so many messages share a time that
    a split would have less than half or more than twice its share.
    """
    moments = sorted(set(times))
    if len(moments) < 3:
        raise BadInput(
            f"the rows have {len(moments)} different times, but a split by time needs three or "
            "more: is --time-column the time of each message?"
        )
    order = sorted(times)
    # From the third moment on, so that training and validation each keep at least one.
    at_holdout = _nearest(moments[2:], order, len(order) * (1 - holdout_share))
    before = [when for when in moments[1:] if when < at_holdout]
    at_validation = _nearest(before, order, len(order) * (1 - holdout_share - validation_share))
    cuts = Cuts(at_validation, at_holdout)
    for side, share in ((HOLDOUT, holdout_share), (VALIDATION, validation_share)):
        held = sum(cuts.side_of(when) == side for when in order)
        wanted = max(1.0, len(order) * share)
        if not wanted / 2 <= held <= wanted * 2:
            raise BadInput(
                f"the {side} split by time would have {held} of {len(order)} messages instead of "
                f"{wanted:.0f}, because too many have the same time ({len(moments)} different "
                "ones): give times to the second, or another --holdout-share and "
                "--validation-share"
            )
    return cuts


def assign_by_time(
    units: Sequence[Sequence[int]], times: Mapping[int, datetime], cuts: Cuts
) -> dict[int, str]:
    """Return key -> split. A unit is in one split, that of its latest key; its keys from earlier
    periods are left out (``NEAR_HOLDOUT``, ``NEAR_VALIDATION``)."""
    # Moving the earlier keys along would put old messages into the hold-out; leaving them in
    # training would let the model learn held-out messages.
    left_out = {HOLDOUT: NEAR_HOLDOUT, VALIDATION: NEAR_VALIDATION}
    splits: dict[int, str] = {}
    for unit in units:
        sides = {key: cuts.side_of(times[key]) for key in unit}
        latest = next(side for side in (HOLDOUT, VALIDATION, TRAIN) if side in sides.values())
        for key, side in sides.items():
            splits[key] = side if side == latest else left_out[latest]
    return splits


def _nearest(moments: Sequence[datetime], order: Sequence[datetime], wanted: float) -> datetime:
    """Return the moment for which the number of earlier times is nearest to ``wanted``."""
    return min(moments, key=lambda when: abs(bisect_left(order, when) - wanted))


_OUT_OF_TIME = "left out, its label was given before the part it is in"


@dataclass(frozen=True, slots=True)
class FilledSplits:
    """Rows and examples by split. ``surplus`` exceeds ``per_label``, ``pool`` is set aside with a
    teacher's labels; ``near_holdout`` counts rows that were left out as near to the hold-out,
    ``counts`` (JSON) the others."""

    rows: dict[str, list[Row]]
    splits: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    pool: tuple[Row, ...]
    near_holdout: int
    counts: dict[str, Any]


def fill_splits(
    rows: Sequence[Row],
    held: Sequence[Row],
    split: Split,
    settings: PrepareSettings,
) -> FilledSplits:
    """Put each row into its split; ``held`` are the rows of the ``--holdout`` file."""
    left_out = (NEAR_HOLDOUT, NEAR_VALIDATION, POOL, TOO_LATE, _OUT_OF_TIME)
    placed: dict[str, list[Row]] = {place: [] for place in (*SPLITS, *left_out)}
    placed[HOLDOUT] += held
    for row in rows:
        placed[_place(row, split)].append(row)
    placed[TRAIN], surplus = cap_per_label(placed[TRAIN], settings.per_label, seed=settings.seed)
    splits = {name: _examples(placed[name]) for name in SPLITS}
    counts: dict[str, Any] = {
        "surplus": dict(Counter(row.label for row in surplus)),
        "splits": {name: len(examples) for name, examples in splits.items()},
    }
    if split.cuts is not None or placed[NEAR_VALIDATION]:
        counts["near_validation_removed"] = len(placed[NEAR_VALIDATION])
    if placed[POOL]:
        counts["teacher_pool"] = len(placed[POOL])
    if placed[TOO_LATE]:
        counts["teacher_too_late"] = len(placed[TOO_LATE])
    if split.cuts is not None:
        counts["out_of_time_removed"] = len(placed[_OUT_OF_TIME])
    near_holdout = len(placed[NEAR_HOLDOUT])
    return FilledSplits(
        {name: placed[name] for name in SPLITS},
        splits,
        _examples(surplus),
        tuple(placed[POOL]),
        near_holdout,
        counts,
    )


def _place(row: Row, split: Split) -> str:
    """Return a row's split, or the reason why it is in none."""
    # A message that occurs in two periods belongs to the later one. If decisions or a majority
    # chose the earlier row's label, that label was known before the split's period: leave it out.
    place = split.of[row.key]
    in_time = split.cuts is None or place not in SPLITS or split.cuts.side_of(moment(row)) == place
    return place if in_time else _OUT_OF_TIME


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Return a split's examples, sorted by id."""
    return tuple(sorted((row.example for row in rows), key=lambda example: example.id))
