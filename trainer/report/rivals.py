"""The duel as the report reads it: which candidate is the adapter, and its best rival."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.report.read import Record

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """The adapter against its most accurate rival, on the same messages.

    ``difference`` is the adapter's accuracy less the rival's, with its 95 % interval; ``p`` is
    adjusted for all pairs of the duel (Holm 1979).
    """

    rival: str
    rival_accuracy: float
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance would explain."""
        return self.p < ALPHA


def is_adapter(candidate: Record) -> bool:
    """Whether a candidate is the adapter that the run made."""
    return "adapter" in {candidate.get("kind"), candidate["name"]}


def compare(duel: Record) -> Comparison | None:
    """Return the comparison that matters most, None where the duel lacks it."""
    ours = next((one for one in duel["candidates"] if is_adapter(one)), None)
    rivals = [one for one in duel["candidates"] if not is_adapter(one)]
    if ours is None or not rivals:
        return None
    best = max(rivals, key=lambda one: (one["accuracy"], one["name"]))
    for pair in duel["pairs"]:
        names = (pair["a"], pair["b"])
        if set(names) == {ours["name"], best["name"]}:
            sign = 1 if names[0] == ours["name"] else -1
            low, high = sorted(sign * bound for bound in pair["interval_95"])
            p = pair["p_holm"] if pair.get("p_holm") is not None else pair["mcnemar_p"]
            return Comparison(
                best["name"], best["accuracy"], sign * pair["difference"], (low, high), p
            )
    return None
