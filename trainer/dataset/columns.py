"""Which column of an export is the message, which the label: as the user names them, or guessed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput

# Taken, in this order, where the usual name is absent and none was asked for. The first pair is
# what instruction-tuning files are made of.
_GUESSES = {
    "message": ("instruction", "text", "body", "content", "prompt", "input", "question", "query"),
    "label": ("response", "category", "class", "intent", "output", "completion", "target", "topic"),
    "id": ("ticket_id", "message_id"),
    "sublabel": ("subcategory",),
}
_ONLY_NAMED = frozenset({"time", "group", "language", "source"})
_OPTIONAL = frozenset({"id", "sublabel"}) | _ONLY_NAMED


@dataclass(frozen=True, slots=True)
class ChosenColumns:
    """The columns taken. ``guessed`` lists the fields whose name nobody gave."""

    message: str
    label: str
    id: str | None
    sublabel: str | None
    guessed: tuple[str, ...] = ()
    time: str | None = None
    group: str | None = None
    language: str | None = None
    source: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [column for column in self.describe().values() if column]

    def describe(self) -> dict[str, str | None]:
        """Return field -> column, for the manifest. What only a split other than the plain random
        one needs is named where it was asked for."""
        asked = {
            "time": self.time,
            "group": self.group,
            "language": self.language,
            "source": self.source,
        }
        return {
            "message": self.message,
            "label": self.label,
            "id": self.id,
            "sublabel": self.sublabel,
            **{field: column for field, column in asked.items() if column},
        }


def choose_columns(wanted: ColumnNames, there: Sequence[str], where: str) -> ChosenColumns:
    """Match fields with the columns there are. Raises BadInput that lists the columns and names
    the nearest one when a needed column is missing, or when one occurs twice."""
    doubled = sorted({name for name in there if there.count(name) > 1})
    if doubled:
        raise BadInput(f"{where}: the column {doubled[0]!r} occurs twice: rename one")
    taken: dict[str, str | None] = {}
    guessed = []
    for field, name in asdict(wanted).items():
        column = name or _usual(field, there, taken.values())
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
    return ChosenColumns(
        message,
        label,
        taken["id"],
        taken["sublabel"],
        tuple(guessed),
        time=taken["time"],
        group=taken["group"],
        language=taken["language"],
        source=taken["source"],
    )


def _usual(field: str, there: Sequence[str], taken: Collection[str | None]) -> str | None:
    if field in _ONLY_NAMED:
        return None
    return field if field in there else _guess(field, there, taken)


def _guess(field: str, there: Sequence[str], taken: Collection[str | None]) -> str | None:
    return next((name for name in _GUESSES[field] if name in there and name not in taken), None)


def _missing(field: str, name: str, there: Sequence[str], where: str) -> str:
    columns = ", ".join(there) or "none"
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: no column {name!r}{hint} There are: {columns}. Name one by --{field}-column"
