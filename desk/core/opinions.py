"""What follows from what people have said of one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

OpinionKind = Literal["label", "none"]
"""A label of the taxonomy, or: no label fits."""

DecisionKind = Literal["label", "none", "skip", "flag"]
"""What a person can do with an item: an opinion, leave it to others, or ask an adjudicator."""

State = Literal["fetching", "held", "open", "second", "dispute", "decided", "closed"]
"""Where an item stands.

fetching: its text is not here yet; held: its taxonomy is not the desk's; open: nobody has decided;
second: another person is wanted; dispute: an adjudicator is; decided; closed: cannot be decided,
because its text is gone.
"""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's word on an item. ``label`` is None where no label fits."""

    person_id: int
    kind: OpinionKind
    label: str | None
    final: bool = False
    """Whether it is an adjudicator's, which ends the matter."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the opinions come to. ``opinion`` is the one that holds, where one does."""

    state: Literal["open", "second", "dispute", "decided"]
    opinion: Opinion | None = None


def standing(wanted: int, opinions: Sequence[Opinion], *, flagged: bool = False) -> Standing:
    """Return where an item stands by its opinions, oldest first, of which ``wanted`` are asked for.

    An adjudicator's opinion holds. People who agree settle it; people who do not are a dispute. An
    item that somebody flagged is one until an adjudicator has seen it.
    """
    final = [opinion for opinion in opinions if opinion.final]
    if final:
        return Standing("decided", final[-1])
    if flagged:
        return Standing("dispute")
    if not opinions:
        return Standing("open")
    if len({(opinion.kind, opinion.label) for opinion in opinions}) > 1:
        return Standing("dispute")
    if len(opinions) < wanted:
        return Standing("second")
    return Standing("decided", opinions[-1])
