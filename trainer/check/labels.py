"""Are there enough examples of every label, is none drowned, and can the names be told apart?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from trainer.check.finding import Finding
from trainer.dataset.examples import Example
from worker.contract import Label, Taxonomy

FLOOR = 200
"""Examples a label below which a label has few. docs/figures.md has the curve: on bank messages
200 clean examples a label reach what all of them reach with a tenth wrong."""

HARD_FLOOR = 20
_HOLDOUT_FLOOR = 30
_IMBALANCE = 10.0

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ALIKE = 0.85


def check_counts(examples: Sequence[Example], taxonomy: Taxonomy, floor: int) -> Finding:
    """Count training and validation examples a label: fewer than 20 fail, than ``floor`` warn."""
    counts = Counter(example.label for example in examples)
    per_label = {name: counts[name] for name in taxonomy.names}
    few = [name for name, n in per_label.items() if n < floor]
    too_few = [name for name, n in per_label.items() if n < HARD_FLOOR]
    least = min(per_label, key=lambda name: per_label[name])
    figures = {"per_label": per_label, "floor": floor, "below_floor": few, "below_20": too_few}
    found = f"{len(examples):,} examples, at least {per_label[least]:,} a label ({least})"
    if too_few:
        advice = f"Label at least {HARD_FLOOR}, better {floor}, messages for {_list(too_few)}, or "
        advice += "drop the label from the taxonomy: nothing can be learnt from so few."
        return Finding("examples per label", "fail", found, advice, figures)
    if few:
        advice = f"Label more messages for {_list(few)}: fewer than {floor} examples."
        return Finding("examples per label", "warn", found, advice, figures)
    return Finding("examples per label", "ok", found, "", figures)


def check_balance(examples: Sequence[Example], taxonomy: Taxonomy) -> Finding:
    """Compare the largest label with the smallest; the entropy is 1 where all are equal."""
    counts = Counter(example.label for example in examples)
    sizes = [counts[name] for name in taxonomy.names]
    ratio = max(sizes) / max(1, min(sizes))
    shares = [size / max(1, sum(sizes)) for size in sizes if size]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(len(sizes))
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


def check_names(taxonomy: Taxonomy) -> Finding:
    """Compare names by their words, whatever their order, case and plural, and by their letters;
    descriptions by their text. A label without a description is named too."""
    alike = [
        (left.name, right.name, why)
        for left, right in combinations(taxonomy.labels, 2)
        if (why := _why_alike(left, right))
    ]
    silent = [label.name for label in taxonomy.labels if not label.description.strip()]
    figures = {"alike": [list(pair) for pair in alike], "without_description": silent}
    found = f"{len(alike)} pairs of names alike, {len(silent)} labels without a description"
    if not alike and not silent:
        return Finding("label names", "ok", found, "", figures)
    advice = []
    if alike:
        pairs = "; ".join(f"{left} and {right} ({why})" for left, right, why in alike[:3])
        advice.append(f"Rename or merge labels that annotators will mix up: {pairs}.")
    if silent:
        advice.append(f"Describe in a sentence what belongs under {', '.join(silent[:5])}.")
    return Finding("label names", "warn", found, " ".join(advice), figures)


def _why_alike(left: Label, right: Label) -> str:
    words = _words(left.name), _words(right.name)
    letters = _ratio("".join(sorted(words[0])), "".join(sorted(words[1])))
    spelled = _ratio(left.name.casefold(), right.name.casefold())
    if words[0] == words[1]:
        return "the same words"
    if max(letters, spelled) >= _ALIKE:
        return "nearly the same letters"
    if left.description and left.description == right.description:
        return "the same description"
    return ""


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right).ratio()


def _words(name: str) -> frozenset[str]:
    parts = _WORD.findall(_CAMEL.sub(" ", name).casefold())
    return frozenset(part.removesuffix("s") for part in parts)


def _list(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
