"""A few rows as a person can check them: every token in its colour, and what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from trainer.model.rows import IGNORE_INDEX, Row
from worker.contract import PromptSpec

Decode = Callable[[Sequence[int]], str]

_FIXED = ("dim", "dim cyan")
_MESSAGE = ("green", "bright_green")
_LEARNT = "bold black on yellow"


def draw(row: Row, spec: PromptSpec, decode: Decode) -> Text:
    """Return a row with one shade a token: the fixed parts dim, the message green, and what is
    learnt black on yellow between ⟦ and ⟧, for terminals without colours too."""
    text = Text()
    end = len(row.ids) - 1 - len(spec.suffix_ids)
    for start, stop, shades in (
        (0, len(spec.prefix_ids), _FIXED),
        (len(spec.prefix_ids), end, _MESSAGE),
        (end, len(row.ids) - 1, _FIXED),
    ):
        for at, piece in enumerate(_pieces(row.ids[start:stop], decode)):
            text.append(piece, style=shades[at % 2])
    learnt = [
        one for one, target in zip(row.ids, row.targets, strict=True) if target != IGNORE_INDEX
    ]
    text.append(f"⟦{decode(learnt)}⟧", style=_LEARNT)
    return text


def choose(rows: Sequence[Row], count: int) -> list[Row]:
    """Return the shortest, the longest and some between, of different labels where possible."""
    order = sorted(rows, key=lambda row: (len(row.ids), row.ids))
    places = [round(at * (len(order) - 1) / max(1, count - 1)) for at in range(count)]
    return [order[at] for at in sorted(set(places))]


def _pieces(ids: Sequence[int], decode: Decode) -> list[str]:
    """Decode token by token, and together what is only text together (parts of a character)."""
    pieces: list[str] = []
    waiting: list[int] = []
    for one in ids:
        waiting.append(one)
        piece = decode(waiting)
        if "\ufffd" not in piece:
            pieces.append(piece)
            waiting = []
    return [*pieces, decode(waiting)] if waiting else pieces
