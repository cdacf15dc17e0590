"""What messages that belong together are worth: the design effect.

Messages of one thread, or near-copies of each other, are right or wrong together. A hundred of them
prove less than a hundred independent ones: a test that counts them all passes what it should not.
The design effect says how many of them count as one (Kish 1965); a test is then given counts
divided by it, and keeps its own form (Rao and Scott 1992, Biometrics 48:577).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DOUBT = 0.5
"""Weight of the group that is added to those found. Chosen by simulation (``python -m
tests.bench.judges``): without it, a few differing messages that happen to lie in different groups
look independent, and the tests pass up to twice as often as they may."""

Groups = NDArray[np.int64]
"""The number of each message's group, (messages,); a message that is alone has its own number."""


def as_groups(numbers: Sequence[int | None]) -> Groups | None:
    """Return groups from numbers of which None means "alone"; None where all are alone."""
    if all(number is None for number in numbers):
        return None
    free = max(number for number in numbers if number is not None) + 1
    found = [free + at if number is None else number for at, number in enumerate(numbers)]
    return np.unique(np.array(found, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def design_effect(values: NDArray[np.generic], groups: Groups | None) -> float:
    """Return how many messages count as one in a mean of ``values`` (messages, between -1 and 1):
    the variance of the mean by groups over that of independent messages, at least 1.

    Half a group of ordinary size, all of whose messages agree, is added to what was found. Where
    few values differ from the others nothing shows how they cluster, and the effect is then near
    its upper limit, the size of the group that an average message is in. 1.0 without groups.
    """
    if groups is None or not len(values):
        return 1.0
    sizes = np.bincount(groups)
    limit = float((sizes**2).sum() / len(groups))
    found = values.astype(np.float64)
    rest = found - found.mean()
    together = float((np.bincount(groups, rest) ** 2).sum()) + _DOUBT * limit**2
    alone = float((rest**2).sum()) + _DOUBT * limit
    return min(limit, max(1.0, together / alone))
