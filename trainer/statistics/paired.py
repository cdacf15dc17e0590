"""How far apart two accuracies are: on the same messages, and on different ones.

Differences are shares (0.01 is one point): the first labelling's accuracy less the second's.
"""

from __future__ import annotations

import math

from trainer.statistics.metrics import Discordance, wilson
from trainer.statistics.noninferiority import lowest_difference


def paired_interval(found: Discordance, *, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of the difference of two labellings of the same messages:
    Tango's score interval (1998, Statistics in Medicine 17:891). Unlike the bootstrap's it has a
    length where the two differ on few messages or none."""
    alpha = (1 - level) / 2
    return lowest_difference(found, alpha), -lowest_difference(found.turned, alpha)


def unpaired_interval(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares of different messages, each given
    as (hits, total): Newcombe's hybrid score interval (1998, Statistics in Medicine 17:873, method
    10), of the two Wilson intervals."""
    (share_a, low_a, high_a), (share_b, low_b, high_b) = (
        (hits / total, *wilson(hits, total)) for hits, total in (a, b)
    )
    difference = share_a - share_b
    return (
        difference - math.hypot(share_a - low_a, high_b - share_b),
        difference + math.hypot(high_a - share_a, share_b - low_b),
    )
