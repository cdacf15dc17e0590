"""What to ship, by rules that are written down before the figures are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.paired import ALPHA

RULES = (
    "1. A contender that is significantly better than the adapter is shipped in its place (the "
    "most accurate of them). 2. Else, where a cheap contender (no GPU, no base model) cannot be "
    "told from the adapter, the cheap one is shipped (the most accurate of them). 3. Else the "
    "adapter. Significant: McNemar's exact test of each contender against the adapter, below 5 % "
    "after Holm's correction for all of them."
)
CHEAP_KINDS = ("tfidf", "embeddings", "combined", "sublabels")


@dataclass(frozen=True, slots=True)
class Standing:
    """A contender beside the adapter. ``difference`` is the adapter's accuracy less the
    contender's, ``p`` the corrected p-value."""

    name: str
    kind: str
    accuracy: float
    difference: float
    p: float

    @property
    def is_cheap(self) -> bool:
        """Whether it runs without a GPU and without a base model."""
        return self.kind.startswith(CHEAP_KINDS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``recommend`` is "adapter" or a contender's name; ``text`` says why, in plain words."""

    recommend: str
    text: str


def judge(standings: Sequence[Standing], accuracy: float, resolvable: float) -> Verdict:
    """Apply ``RULES``. ``accuracy`` is the adapter's, ``resolvable`` the smallest difference
    that the hold-out finds four times in five."""
    better = [one for one in standings if one.p < ALPHA and one.difference < 0]
    equal = [one for one in standings if one.is_cheap and one.p >= ALPHA]
    if better:
        best = max(better, key=lambda one: one.accuracy)
        text = (
            f"Ship {best.name}: right {best.accuracy:.1%} of the time against the adapter's "
            f"{accuracy:.1%}, which is no accident (p = {best.p:.2g})."
        )
        return Verdict(best.name, text + (_ABROAD if best.kind == "recorded" else ""))
    if equal:
        best = max(equal, key=lambda one: one.accuracy)
        text = (
            f"Ship {best.name}: right {best.accuracy:.1%} of the time, it cannot be told from the "
            f"adapter's {accuracy:.1%} (p = {best.p:.2g}) and needs no GPU. This hold-out finds "
            f"differences from {resolvable:.1%} on; a larger one, or a better adapter, could "
            "change this."
        )
        return Verdict(best.name, text)
    rivals = [one for one in standings if one.is_cheap]
    text = f"Deploy the adapter: right {accuracy:.1%} of the time"
    if rivals:
        best = max(rivals, key=lambda one: one.accuracy)
        text += (
            f", it beats every cheap contender; the best, {best.name}, reaches "
            f"{best.accuracy:.1%} (p = {best.p:.2g})"
        )
    others = [one for one in standings if not one.is_cheap and one.p >= ALPHA]
    if others:
        names = ", ".join(f"{one.name} ({one.accuracy:.1%})" for one in others)
        text += f". Not told apart from it: {names}, which cost more to run or more a message"
    return Verdict("adapter", f"{text}.")


_ABROAD = (
    " It runs elsewhere: what it costs a message, how long it takes and that the messages leave "
    "the house are yours to weigh."
)
