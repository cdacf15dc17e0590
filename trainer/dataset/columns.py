"""Which columns of a file hold the message, its label, its id and its finer label."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainer.errors import BadInput

# Taken, in this order, where the usual name is absent and none was asked for. The first pair is
# what instruction-tuning files are made of.
GUESSES = {
    "message": ("instruction", "text", "body", "content", "prompt", "input", "question", "query"),
    "label": ("response", "category", "class", "intent", "output", "completion", "target", "topic"),
    "id": ("ticket_id", "message_id"),
    "sublabel": ("subcategory",),
}
_OPTIONAL = frozenset({"id", "sublabel"})


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns as the user gave them; None stands for the usual name or a guess."""

    message: str | None = None
    label: str | None = None
    id: str | None = None
    sublabel: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns taken. ``guessed`` lists the fields whose name nobody gave."""

    message: str
    label: str
    id: str | None
    sublabel: str | None
    guessed: tuple[str, ...] = ()

    def describe(self) -> dict[str, str | None]:
        """Return field -> column, for the manifest."""
        return {
            "message": self.message,
            "label": self.label,
            "id": self.id,
            "sublabel": self.sublabel,
        }


def choose_columns(wanted: Columns, there: Sequence[str], where: str) -> Chosen:
    """Match fields with the columns there are. Raises BadInput that lists the columns and names
    the nearest one when a needed column is missing, or when one stands there twice."""
    doubled = sorted({name for name in there if there.count(name) > 1})
    if doubled:
        raise BadInput(f"{where}: the column {doubled[0]!r} stands there twice: rename one")
    taken: dict[str, str | None] = {}
    guessed = []
    for field, name in (
        ("message", wanted.message),
        ("label", wanted.label),
        ("id", wanted.id),
        ("sublabel", wanted.sublabel),
    ):
        column = name or (field if field in there else _guess(field, there, taken.values()))
        if column is None and field in _OPTIONAL:
            taken[field] = None
            continue
        if column is None or column not in there:
            raise BadInput(_missing(field, name or field, there, where))
        if column in taken.values():
            raise BadInput(f"{where}: the column {column!r} cannot be two things: see --help")
        if name is None and column != field:
            guessed.append(field)
        taken[field] = column
    message, label = taken["message"], taken["label"]
    assert message is not None
    assert label is not None
    return Chosen(message, label, taken["id"], taken["sublabel"], tuple(guessed))


def _guess(field: str, there: Sequence[str], taken: Collection[str | None]) -> str | None:
    return next((one for one in GUESSES[field] if one in there and one not in taken), None)


def _missing(field: str, name: str, there: Sequence[str], where: str) -> str:
    columns = ", ".join(there) or "none"
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: no column {name!r}{hint} There are: {columns}. Name one by --{field}-column"
