"""What is said of a field beside its type: ``Annotated[float, Range(0, 1), Doc("...")]``.

``codec`` checks ranges when a record is read; the JSON Schemas show both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Doc:
    """What a field means, for those who read its JSON Schema."""

    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest and the largest value that a number may have."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that the whole of a text matches, anchored with ``^`` and ``$``."""

    regex: str


Probability = Annotated[float, Range(0, 1)]
