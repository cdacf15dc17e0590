"""How far people agree beyond chance: Krippendorff's alpha for nominal data.

Written out because scikit-learn has no alpha; tested against published values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def krippendorffs_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Return the agreement of any number of people: a unit holds what was said of one item.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, for nominal data. Units with
    one value are passed over. None where it is not defined: nothing was said twice, or one and the
    same value was said always.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = Counter(value for unit in paired for value in unit)
    n = totals.total()
    disagreed = sum(
        sum(here * (len(unit) - here) for here in Counter(unit).values()) / (len(unit) - 1)
        for unit in paired
    )
    by_chance = sum(count * (n - count) for count in totals.values())
    if not by_chance:
        return None
    return 1 - (n - 1) * disagreed / by_chance
