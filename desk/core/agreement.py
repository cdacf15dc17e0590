"""How far people agree beyond chance: Cohen's kappa and Krippendorff's alpha, nominal.

Written out because scikit-learn has kappa alone and is large; tested against published values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def cohens_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Return the agreement of two people over the items that both decided.

    J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960. None where it is not defined: no
    pair, or both always said one and the same.
    """
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(first == second for first, second in pairs) / count
    left = Counter(first for first, _ in pairs)
    right = Counter(second for _, second in pairs)
    expected = sum(left[value] * right[value] for value in left) / count**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


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
