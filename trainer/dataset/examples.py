"""One labelled message: as an export gives it, and as it is from the dataset folder on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.errors import BadInput
from worker.contract.text import message_sha256, normalize

TRAIN, VALIDATION, HOLDOUT = "train", "validation", "holdout"
SPLITS = (TRAIN, VALIDATION, HOLDOUT)
"""What is learned from, what choices are made on, and what is held out for the figures."""


@dataclass(frozen=True, slots=True)
class Example:
    """A message with its label, and a finer label where the data has one.

    ``id`` is unique in its dataset; files that travel (predictions, reports of figures) name a
    message by it and hold no text.
    """

    id: str
    message: str
    label: str
    sublabel: str | None = None

    @property
    def key(self) -> str:
        """What two messages share when one is a copy of the other: normalized, case folded."""
        return normalize(self.message).casefold()


@dataclass(frozen=True, slots=True)
class Row:
    """A message as one file gave it, on its way to a dataset. ``id`` is empty until one is made
    from the content; ``where`` is file and line (or row), for error messages; ``given`` says that
    the row comes from a hold-out file of the user's own."""

    id: str
    message: str
    label: str
    sublabel: str | None
    where: str
    given: bool = False

    @property
    def key(self) -> str:
        """What two copies share: ``Example.key`` of a message that is normalized already."""
        return self.message.casefold()

    @property
    def example(self) -> Example:
        """The row as the dataset folder holds it."""
        return Example(self.id, self.message, self.label, self.sublabel)


def complete_ids(rows: Sequence[Row]) -> list[Row]:
    """Give every row without an id one that is made from its message.

    Copies of a message get ``-2``, ``-3``, in the order of their labels, so that the ids do not
    depend on the order of the lines. Raises BadInput that names the rows of a doubled id.
    """
    order = sorted(
        (place for place, row in enumerate(rows) if not row.id),
        key=lambda place: (normalize(rows[place].message), rows[place].label),
    )
    made: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for place in order:
        stem = "m-" + message_sha256(rows[place].message)[:16]
        seen[stem] += 1
        made[place] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
    complete = [
        replace(row, id=made[place]) if place in made else row for place, row in enumerate(rows)
    ]
    _refuse_doubled_ids(complete)
    return complete


def _refuse_doubled_ids(rows: Sequence[Row]) -> None:
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.id, []).append(row.where)
    doubled = {id_: wheres for id_, wheres in places.items() if len(wheres) > 1}
    if doubled:
        id_, wheres = next(iter(doubled.items()))
        rest = f", and {len(doubled) - 1} more such ids" if len(doubled) > 1 else ""
        raise BadInput(
            f"{len(wheres)} rows have the id {id_!r}: {', '.join(wheres[:5])}{rest}: "
            "ids must be unique; name another --id-column"
        )
