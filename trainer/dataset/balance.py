"""A split whose units are whole and whose parts are alike: in labels, in languages, in both.

The largest units first, each into the part that it fills most evenly: the greedy of scikit-learn's
``StratifiedGroupKFold``, with parts of unlike size, and the chi-square distance between what a part
has and what it should have in place of a variance. For units of one message and one stratum it is
Sainte-Lague's apportionment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION
from trainer.dataset.together import Key

Strata = tuple[str, ...]
"""The strata that a message belongs to: its label, and its language where there is one."""


def assign_balanced(
    units: Sequence[Sequence[Key]],
    strata: Mapping[Key, Sequence[Strata]],
    *,
    validation_share: float,
    holdout_share: float,
    order: Callable[[Key], str],
) -> dict[Key, str]:
    """Return key -> split. ``units`` are of keys, ``strata`` gives each key's; ``order`` gives a
    sort key for a key, which decides between units of one size.

    A stratum of three messages or more is meant to have one in each part. One that is made of two,
    a label in a language, counts where the smallest part should have a message of it; below that
    label and language count one by one.
    """
    shares = {TRAIN: 1 - validation_share - holdout_share, VALIDATION: validation_share}
    if holdout_share:
        shares[HOLDOUT] = holdout_share
    counts = [Counter(s for key in unit for s in strata[key]) for unit in units]
    total: Counter[Strata] = sum(counts, Counter())
    least = min(shares.values())
    counted = {s: n for s, n in total.items() if len(s) == 1 or n * least >= 1}
    wanted = {stratum: _wanted(n, shares) for stratum, n in counted.items()}
    filled: dict[str, Counter[Strata]] = {side: Counter() for side in shares}
    splits: dict[Key, str] = {}
    ranked = sorted(range(len(units)), key=lambda at: (-len(units[at]), order(min(units[at]))))
    for at in ranked:
        count = {s: n for s, n in counts[at].items() if s in wanted}
        losses = {
            side: sum(n * (n / 2 + filled[side][s]) / wanted[s][side] for s, n in count.items())
            for side in shares
        }
        best = min(shares, key=losses.__getitem__)
        filled[best].update(count)
        splits.update(dict.fromkeys(units[at], best))
    return splits


def _wanted(messages: int, shares: Mapping[str, float]) -> dict[str, float]:
    """Return how many messages of a stratum each part should have."""
    if messages < len(shares):
        return {side: messages * share for side, share in shares.items()}
    wanted = {side: max(1.0, messages * share) for side, share in shares.items() if side != TRAIN}
    return wanted | {TRAIN: max(1.0, messages - sum(wanted.values()))}
