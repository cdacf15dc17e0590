"""Which labels may judge, if some are a teacher's.

A model that learned from a teacher repeats its mistakes, and a hold-out that the teacher labelled
calls them right. So with a teacher's labels in the input, hold-out and validation get what people
decided (reviewers, or those behind the export), and the teacher's labels train.

Some of the teacher's labels are set aside in ``teacher_pool.jsonl``, and are not learned. There the
model's agreement with the teacher can be counted on many messages that it has not seen, which
narrows the interval of its accuracy against people (``trainer.statistics.prediction_powered``).
That needs two random draws: the messages that people decided, and the pool. Messages that were
chosen for a reviewer because they looked doubtful are therefore learned, like the teacher's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.dataset.folder import (
    HOLDOUT,
    TRAIN,
    VALIDATION,
    Dataset,
    Example,
    Row,
    read_extra_lines,
    to_lines,
)
from trainer.dataset.settings import PrepareSettings, SplitBy
from trainer.dataset.split import (
    NEAR_HOLDOUT,
    NEAR_VALIDATION,
    POOL,
    TOO_LATE,
    Split,
    assign_splits,
    shuffle_key,
)
from trainer.errors import BadInput

TEACHER_POOL, TEACHER_LABELS = "teacher_pool.jsonl", "teacher_labels.jsonl"
"""The messages that are set aside, with the teacher's labels, in the form of a split; and the
teacher's labels of held-out messages: ``id``, and ``label`` (empty: the teacher gave none)."""


def free_ids(rows: Sequence[Row]) -> list[Row]:
    """Take the id from a teacher's row if people labelled the same message under it: two files, one
    by each, are no reason to rename a column."""
    people = {(row.id, row.message) for row in rows if row.id and not row.by_teacher}
    return [
        replace(row, id="") if row.by_teacher and (row.id, row.message) in people else row
        for row in rows
    ]


def prefer_people(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Leave out a teacher's row if people labelled the same text, and note its label in theirs."""
    # Without this, two labels of one text would be a conflict, which drops both: the hold-out would
    # lose exactly the messages that the teacher has wrong.
    taught = {row.key: row.label for row in rows if row.by_teacher}
    people = {row.key for row in rows if not row.by_teacher}
    if not taught:
        return tuple(rows)
    return tuple(
        row
        if row.by_teacher or row.key not in taught or row.taught is not None
        else replace(row, taught=taught[row.key])
        for row in rows
        if not (row.by_teacher and row.key in people)
    )


def holdout_is_all(rows: Sequence[Row]) -> bool:
    """Whether the ``--holdout`` file has all of people's labels, and ``--input`` only a teacher's.
    A part of it then has to validate."""
    return any(row.given for row in rows) and all(row.given or row.by_teacher for row in rows)


def let_people_judge(split: Split, rows: Sequence[Row], settings: PrepareSettings) -> Split:
    """Return a split in which no teacher's label is in the hold-out or in validation.

    ``rows`` are those after the decisions, with the ``--holdout`` file's, and ``split`` is that of
    all rows. In a random split people's rows fill the hold-out and validation first, up to their
    shares of all messages. Otherwise they stay where they are. Raises BadInput if none is left for
    one of the two.
    """
    row_of = {row.key: row for row in rows}
    given = {row.key for row in rows if row.given}
    judges = _judges(row_of, given)

    def order(key: int) -> str:
        return shuffle_key(settings.seed, row_of[key].folded)

    units = [[key for key in unit if key in row_of] for unit in split.units]
    if settings.split is SplitBy.RANDOM and not settings.columns.language:
        free = len(row_of) - len(given)
        own = [[key for key in unit if key in judges] for unit in units if given.isdisjoint(unit)]
        side = _fill_first([unit for unit in own if unit], row_of, free, settings, order)
        pooled = {
            key
            for unit in units
            if unit and _fraction(order(min(unit))) < settings.holdout_share
            for key in unit
        }
    else:
        side = {key: split.of[key] for key in judges}
        pooled = {key for key in row_of if split.of[key] == HOLDOUT}
    side |= dict.fromkeys(given, HOLDOUT)
    if not _is_comparable(row_of[key] for key, place in side.items() if place == HOLDOUT):
        pooled = set()
    places = split.of | {
        key: place
        for unit in units
        for key, place in _place_unit(unit, row_of, side, pooled, split).items()
    }
    _refuse_missing(side, judges, row_of)
    return replace(split, of=places)


def _is_comparable(held: Iterable[Row]) -> bool:
    """Whether a pool is of use: the hold-out was drawn at random, and the teacher's label of each
    message is known."""
    # All or nothing: messages that the teacher never saw are not of the pool's kind.
    return all(row.taught is not None and not row.chosen for row in held)


def _judges(row_of: Mapping[int, Row], given: set[int]) -> set[int]:
    """Return the keys whose labels may judge: people's that were drawn at random; if there are
    none, all of people's."""
    people = {key for key, row in row_of.items() if not row.by_teacher and key not in given}
    return {key for key in people if not row_of[key].chosen} or people


def _fill_first(
    units: Sequence[Sequence[int]],
    row_of: Mapping[int, Row],
    messages: int,
    settings: PrepareSettings,
    order: Callable[[int], str],
) -> dict[int, str]:
    """Return key -> split for people's rows: the shares are of all ``messages``, so few rows fill
    the hold-out and validation, and leave none to train on."""
    theirs = sum(map(len, units))
    if not theirs:
        return {}
    holdout = 0.0 if settings.given_holdout else settings.holdout_share
    wanted = holdout + settings.validation_share
    scale = min(messages / theirs, 1 / wanted)
    side = assign_splits(
        units,
        {key: row_of[key].label for unit in units for key in unit},
        holdout_share=holdout * scale,
        validation_share=settings.validation_share * scale,
        order=order,
    )
    if scale * wanted < 1:
        return side
    rounded_off = HOLDOUT if holdout else VALIDATION
    return {key: rounded_off if place == TRAIN else place for key, place in side.items()}


def _fraction(sort_key: str) -> float:
    return int(sort_key[:12], 16) / 16**12


def _place_unit(
    unit: Sequence[int],
    row_of: Mapping[int, Row],
    side: Mapping[int, str],
    pooled: set[int],
    split: Split,
) -> dict[int, str]:
    """Return the place of each message of a unit: what is near to a message that judges, or that is
    set aside, is not learned."""
    # Whether a unit is set aside does not depend on who labelled its messages, so the pool is a
    # random part of all that the teacher labelled, those that a reviewer decided too included.
    places = {key: side[key] for key in unit if key in side}
    aside = {key for key in unit if key in pooled and key not in places and _taught(row_of[key])}
    sides = {place for place in places.values() if place != TRAIN}
    left_out = None
    if HOLDOUT in sides or aside:
        left_out = NEAR_HOLDOUT
    elif VALIDATION in sides:
        left_out = NEAR_VALIDATION
    places = {
        key: left_out if place == TRAIN and left_out else place for key, place in places.items()
    }
    for key in unit:
        if key in places:
            continue
        if key in aside:
            places[key] = POOL
        elif left_out:
            places[key] = left_out
        elif split.cuts is not None and split.of[key] in {HOLDOUT, VALIDATION}:
            places[key] = TOO_LATE
        else:
            places[key] = split.of[key] if split.of[key] in _LEFT_OUT else TRAIN
    return places


_LEFT_OUT = frozenset({NEAR_HOLDOUT, NEAR_VALIDATION})


def _taught(row: Row) -> str | None:
    """Return the teacher's label of a row, if it has one."""
    return row.label if row.by_teacher else row.taught or None


def pool_example(row: Row) -> Example:
    """Return a row of the pool, with the teacher's label."""
    return replace(row.example, label=_taught(row) or row.label)


_SAMPLE = "clerk-trainer tasks MESSAGES --for audit --out sample.jsonl"


def _refuse_missing(
    side: Mapping[int, str],
    judges: set[int],
    row_of: Mapping[int, Row],
) -> None:
    there = set(side.values())
    if {HOLDOUT, VALIDATION} <= there:
        return
    taught = sum(row.by_teacher for row in row_of.values())
    few = f"only {len(judges):,} of them by people" if judges else "none of them by people"
    raise BadInput(
        f"{taught:,} labels are by a teacher and {few}, too few for a hold-out and validation, so "
        "nothing could show how often a model is right: have reviewers decide on a random sample: "
        f"{_SAMPLE} draws it for the desk; then give their decisions with --decisions, to "
        "clerk-trainer label or here"
    )


def describe_people(
    rows: Mapping[str, Sequence[Row]], pool: Sequence[Row], names: Sequence[str]
) -> dict[str, Any]:
    """Return the manifest's ``people`` (JSON). ``rows`` are those of each split."""
    judging = [row for part in (HOLDOUT, VALIDATION) for row in rows[part]]
    return {
        "holdout": len(rows[HOLDOUT]),
        "validation": len(rows[VALIDATION]),
        "chosen": sum(row.chosen for row in judging),
        "learned": sum(not row.by_teacher for row in rows[TRAIN]),
        "pool": len(pool),
        "compared": sum(row.taught is not None for row in rows[HOLDOUT]),
        "labels_missing": {
            part: [name for name in names if name not in {row.label for row in rows[part]}]
            for part in (HOLDOUT, VALIDATION)
        },
    }


def people_sentences(record: Mapping[str, Any], enough: int | None = None) -> Iterator[str]:
    """Describe in sentences who labelled what, from a manifest; nothing if no teacher did.
    ``enough`` is how many held-out messages show what the gate asks for."""
    found = record.get("people")
    if not found:
        return
    aside = ""
    if found["pool"]:
        aside = (
            f", except {found['pool']:,} that are set aside ({TEACHER_POOL}) to narrow the "
            "interval of the accuracy"
        )
    yield (
        f"Labels by people judge: {found['holdout']:,} are held out and {found['validation']:,} "
        f"validate; {found['learned']:,} more are learned. All others are a teacher's, and are "
        f"learned{aside}."
    )
    if found["chosen"]:
        yield (
            f"Warning: {found['chosen']:,} of the messages that judge were chosen for a reviewer, "
            "not drawn at random: doubtful ones are harder than others, so figures are too low. "
            f"Decide on a random sample: {_SAMPLE}."
        )
    if found["compared"] < found["holdout"]:
        yield (
            f"What the teacher said about {found['holdout'] - found['compared']:,} held-out "
            "messages is not known, so its labels cannot narrow an interval. Use the file of "
            "clerk-trainer label --decisions, or give the teacher's rows too."
        )
    for part, names in found["labels_missing"].items():
        if names:
            yield f"No message of {', '.join(names)} is in {part}: nothing is measured of it there."
    if enough is not None and enough > found["holdout"]:
        judging = found["holdout"] + found["validation"]
        more = round((enough - found["holdout"]) * judging / max(1, found["holdout"]))
        yield (
            f"Decisions on about {more:,} more messages, drawn at random, would make "
            f"{enough:,} held-out ones."
        )


def pool_file(pool: Sequence[Row]) -> tuple[bytes, int]:
    """Return the pool's file and its number of rows, sorted by id."""
    rows = sorted((pool_example(row) for row in pool), key=lambda each: each.id)
    return to_lines(rows), len(rows)


def teacher_label_lines(held: Sequence[Row]) -> tuple[bytes, int]:
    """Return the file of the teacher's labels of held-out messages, and its number of rows."""
    known = {row.id: row.taught or "" for row in held} if _is_comparable(held) else {}
    return _label_lines(known), len(known)


def _label_lines(labels: Mapping[str, str]) -> bytes:
    lines = (
        json.dumps({"id": id_, "label": labels[id_]}, ensure_ascii=False) for id_ in sorted(labels)
    )
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


@dataclass(frozen=True, slots=True)
class Taught:
    """What a dataset knows of its teacher: held-out id -> its label (empty: none), and the messages
    that were set aside with its labels."""

    labels: Mapping[str, str]
    pool: tuple[Example, ...]


def read_taught(dataset: Dataset) -> Taught | None:
    """Return what the teacher said, None unless there are both a pool and labels to compare. Raises
    BadInput if a file is missing or was altered."""
    pool = read_extra_lines(dataset, TEACHER_POOL)
    labels = read_extra_lines(dataset, TEACHER_LABELS)
    if not pool or not labels:
        return None
    return Taught(
        {row["id"]: row["label"] for row in labels},
        tuple(Example(row["id"], row["instruction"], row["response"]) for row in pool),
    )


def keep_taught(taught: Taught, held: Iterable[str]) -> Iterator[tuple[str, bytes, int]]:
    """Yield both files for a new version with these held-out ids: name, content, rows.

    The teacher was not asked about new messages, which count like those that it gave no label: the
    pool speaks for those that it labelled, and the others are estimated by themselves.
    """
    labels = {id_: taught.labels.get(id_, "") for id_ in held}
    yield TEACHER_LABELS, _label_lines(labels), len(labels)
    yield TEACHER_POOL, to_lines(taught.pool), len(taught.pool)


def has_same_pool(one: Dataset, other: Dataset) -> bool:
    """Whether two datasets set the same messages aside, so that a model of one has not learnt those
    of the other."""
    files = [(each.record.get("extra_files") or {}).get(TEACHER_POOL) for each in (one, other)]
    return files[0] == files[1]


def has_teacher(record: Mapping[str, Any], split: str) -> bool:
    """Whether a split of a dataset has a teacher's labels, by its manifest."""
    counted: Counter[str] = Counter()
    for words, count in (record.get("label_sources") or {}).get(split, {}).items():
        counted[words.partition(",")[0]] += count  # without the guideline
    return counted["teacher"] > 0
