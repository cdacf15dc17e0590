"""Are there enough examples of every label, and is no label drowned?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.check.finding import Finding
from trainer.dataset.examples import Example
from worker.contract import Taxonomy

FLOOR = 200
"""Examples a label below which a label is called thin. docs/figures.md has the curve: on bank
messages 200 clean examples a label reach what all of them reach with a tenth wrong."""

HARD_FLOOR = 20
_HOLDOUT_FLOOR = 30
_IMBALANCE = 10.0


def check_counts(examples: Sequence[Example], taxonomy: Taxonomy, floor: int) -> Finding:
    """Count training and validation examples a label: fewer than 20 fail, than ``floor`` warn."""
    counts = Counter(one.label for one in examples)
    per_label = {name: counts[name] for name in taxonomy.names}
    few = [name for name, n in per_label.items() if n < floor]
    none = [name for name, n in per_label.items() if n < HARD_FLOOR]
    least = min(per_label, key=lambda name: per_label[name])
    figures = {"per_label": per_label, "floor": floor, "below_floor": few, "below_20": none}
    found = f"{len(examples):,} examples, at least {per_label[least]:,} a label ({least})"
    if none:
        advice = f"Label at least {HARD_FLOOR}, better {floor}, messages for {_list(none)}, or "
        advice += "drop the label from the taxonomy: nothing can be learnt from so few."
        return Finding("examples per label", "fail", found, advice, figures)
    if few:
        advice = f"Label more messages for {_list(few)}: fewer than {floor} examples."
        return Finding("examples per label", "warn", found, advice, figures)
    return Finding("examples per label", "ok", found, "", figures)


def check_balance(examples: Sequence[Example], taxonomy: Taxonomy) -> Finding:
    """Compare the largest label with the smallest; the entropy is 1 where all are equal."""
    counts = Counter(one.label for one in examples)
    sizes = [counts[name] for name in taxonomy.names]
    ratio = max(sizes) / max(1, min(sizes))
    shares = [one / max(1, sum(sizes)) for one in sizes if one]
    entropy = -sum(one * math.log(one) for one in shares) / math.log(len(sizes))
    figures = {"largest_to_smallest": round(ratio, 2), "entropy": round(entropy, 4)}
    found = f"the largest label has {ratio:.1f} times the examples of the smallest"
    if ratio > _IMBALANCE:
        advice = "Cap the large labels (prepare --per-label) or label more of the small ones."
        return Finding("balance", "warn", found, advice, figures)
    return Finding("balance", "ok", found, "", figures)


def check_holdout_size(per_label: Mapping[str, int]) -> Finding:
    """Judge by the manifest's counts whether the hold-out can tell good from bad per label."""
    total = sum(per_label.values())
    few = [name for name, n in per_label.items() if n < _HOLDOUT_FLOOR]
    # Half the width of a 95 % interval around an accuracy of 90 %.
    margin = 1.96 * math.sqrt(0.09 / max(1, total))
    figures = {"examples": total, "per_label": dict(per_label), "margin_at_90": round(margin, 4)}
    found = f"{total:,} messages: an accuracy of 90 % would be known to ±{margin:.1%}"
    if few:
        advice = f"Fewer than {_HOLDOUT_FLOOR} messages of {_list(few)}: their own figures will "
        advice += "be guesses. Set more aside (prepare --holdout-share)."
        return Finding("hold-out size", "warn", found, advice, figures)
    return Finding("hold-out size", "ok", found, "", figures)


def _list(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
