"""Label names that people and models will mix up."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import combinations

from trainer.check.finding import Finding
from worker.contract import Taxonomy

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ALIKE = 0.85


def check_names(taxonomy: Taxonomy) -> Finding:
    """Compare names by their words, whatever their order, case and plural, and by their letters;
    descriptions by their text. A label without a description is named too."""
    alike = []
    for one, other in combinations(taxonomy.labels, 2):
        words = _words(one.name), _words(other.name)
        letters = _ratio("".join(sorted(words[0])), "".join(sorted(words[1])))
        spelled = _ratio(one.name.casefold(), other.name.casefold())
        if words[0] == words[1]:
            alike.append((one.name, other.name, "the same words"))
        elif max(letters, spelled) >= _ALIKE:
            alike.append((one.name, other.name, "nearly the same letters"))
        elif one.description and one.description == other.description:
            alike.append((one.name, other.name, "the same description"))
    silent = [one.name for one in taxonomy.labels if not one.description.strip()]
    figures = {"alike": [list(one) for one in alike], "without_description": silent}
    found = f"{len(alike)} pairs of names alike, {len(silent)} labels without a description"
    if not alike and not silent:
        return Finding("label names", "ok", found, "", figures)
    advice = []
    if alike:
        pairs = "; ".join(f"{one} and {other} ({why})" for one, other, why in alike[:3])
        advice.append(f"Rename or merge labels that annotators will mix up: {pairs}.")
    if silent:
        advice.append(f"Describe in a sentence what belongs under {', '.join(silent[:5])}.")
    return Finding("label names", "warn", found, " ".join(advice), figures)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _words(name: str) -> frozenset[str]:
    parts = _WORD.findall(_CAMEL.sub(" ", name).casefold())
    return frozenset(one.removesuffix("s") for one in parts)
