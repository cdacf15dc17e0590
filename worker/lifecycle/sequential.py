"""Is one arm of a comparison worse than the other? Asked after every message, and answered safely.

A test that is looked at again and again until it says yes says yes sooner or later, whatever is
true. This one may be: its evidence is a product of fair bets (an e-process; Ville 1939; for an
overview Ramdas et al. 2023, arXiv 2210.01948). As long as the arms do not differ, the chance that
the evidence ever reaches 1 / alpha is at most alpha, over any number of messages.

Messages are taken in blocks in the order they come, each closed by its size and never by what is
in it. Given how many of a block are marked, every choice of which they are is equally likely if
the arms do not differ: the bet is on how many of them the first arm has (the conditional test of
an odds ratio: Fisher's noncentral hypergeometric distribution). So nothing is assumed about how
many are marked: it may drift from block to block, in both arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_ODDS = (1.25, 1.5, 2.0, 3.0, 5.0)
"""The odds ratios that are bet on, with equal stakes: a product for each, and their mean."""


class Evidence:
    """Evidence that marked messages are more frequent in the first arm than in the second."""

    def __init__(self) -> None:
        self._logs = [0.0] * len(_ODDS)

    @property
    def value(self) -> float:
        """The evidence: 1 at the beginning, and at most 1 on average while nothing differs."""
        highest = max(self._logs)
        mean = sum(math.exp(log - highest) for log in self._logs) / len(self._logs)
        return math.exp(min(700.0, highest + math.log(mean)))

    def add(self, first: int, first_marked: int, second: int, second_marked: int) -> None:
        """Take in a block of so many messages of each arm, so many of them marked."""
        marked = first_marked + second_marked
        least, most = max(0, marked - second), min(first, marked)
        ways = [
            math.comb(first, in_first) * math.comb(second, marked - in_first)
            for in_first in range(least, most + 1)
        ]
        total = sum(ways)
        for index, odds in enumerate(_ODDS):
            expected = sum(
                count / total * odds ** (in_first - first_marked)
                for in_first, count in enumerate(ways, least)
            )
            self._logs[index] -= math.log(expected)


def marked_lowest(values: Sequence[float], share: float) -> list[bool]:
    """Mark the lowest ``share`` of a block (rounded down, at least one), whichever arm they are of.

    Of equal values the earlier ones are marked, which depends on their arms as little.
    """
    count = max(1, int(len(values) * share))
    lowest = sorted(range(len(values)), key=lambda at: (values[at], at))[:count]
    return [at in lowest for at in range(len(values))]
