"""What decides about items: queues, opinions, samples, a change of the taxonomy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.scoring import ReviewReason
from worker.contract.taxonomy import Taxonomy

Order = Literal["oldest", "newest", "doubtful"]
"""By the time it came, or the least confident first."""

Origin = Literal["review", "audit", "check", "holdout", "learn"]
"""Why an item is here: the machine doubted, or the random sample drew it; of a batch of tasks: its
label in a dataset is suspected, the hold-out's own labels are audited, or it teaches most."""

BLIND_ORIGINS: frozenset[Origin] = frozenset({"audit", "holdout"})
"""Those that are decided without seeing any label."""

REASON_BITS: dict[ReviewReason, int] = {
    "low_confidence": 1,
    "off_label_mass": 2,
    "out_of_scope": 4,
    "disagreement": 8,
}
"""Reasons as bits of one number, so that one index serves every combination."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A choice of items; what is None or empty does not restrict.

    ``reason`` is one that the machine had; ``label`` is the machine's; ages are in seconds since
    the item came. ``batch_id`` is a batch of tasks; without one the queue holds what came from
    Kafka alone. Blind items cannot be chosen by what the machine said: a queue with ``reason`` or
    ``label`` holds none of them, for it would give the label away.

    Raises ValueError for an age together with the order by confidence: no index has both, and a
    person would wait.
    """

    reason: ReviewReason | None = None
    label: str | None = None
    adapter_digest: str | None = None
    origin: Origin | None = None
    min_age_s: float | None = None
    max_age_s: float | None = None
    order: Order = "oldest"
    batch_id: int | None = None

    def __post_init__(self) -> None:
        aged = self.min_age_s is not None or self.max_age_s is not None
        if aged and self.order == "doubtful":
            raise ValueError("ages go with the orders by time: oldest or newest")

    @property
    def tells_the_label(self) -> bool:
        """Whether being in it says what the machine said."""
        return self.reason is not None or self.label is not None or self.order == "doubtful"


def reason_bits(reasons: tuple[ReviewReason, ...]) -> int:
    """Return the reasons as one number."""
    return sum(REASON_BITS[reason] for reason in set(reasons))


def values_with(reason: ReviewReason) -> tuple[int, ...]:
    """Return all such numbers that hold this reason."""
    return tuple(n for n in range(1, 1 << len(REASON_BITS)) if n & REASON_BITS[reason])


OpinionKind = Literal["label", "none"]
"""A label of the taxonomy, or: no label fits."""

DecisionKind = Literal["label", "none", "skip", "flag"]
"""What a person can do with an item: an opinion, leave it to others, or ask an adjudicator."""

State = Literal["fetching", "held", "open", "second", "dispute", "decided", "closed"]
"""Where an item stands.

fetching: its text is not here yet; held: its taxonomy is not the desk's; open: nobody has decided;
second: another person is wanted; dispute: an adjudicator is; decided; closed: cannot be decided,
because its text is gone.
"""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One person's word on an item. ``label`` is None where no label fits."""

    person_id: int
    kind: OpinionKind
    label: str | None
    final: bool = False
    """Whether it is an adjudicator's, which ends the matter."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the opinions come to. ``opinion`` is the one that holds, where one does."""

    state: Literal["open", "second", "dispute", "decided"]
    opinion: Opinion | None = None


def standing(wanted: int, opinions: Sequence[Opinion], *, flagged: bool = False) -> Standing:
    """Return where an item stands by its opinions, oldest first, of which ``wanted`` are asked for.

    An adjudicator's opinion holds. People who agree settle it; people who do not are a dispute. An
    item that somebody flagged is one until an adjudicator has seen it.
    """
    final = [opinion for opinion in opinions if opinion.final]
    if final:
        return Standing("decided", final[-1])
    if flagged:
        return Standing("dispute")
    if not opinions:
        return Standing("open")
    if len({(opinion.kind, opinion.label) for opinion in opinions}) > 1:
        return Standing("dispute")
    if len(opinions) < wanted:
        return Standing("second")
    return Standing("decided", opinions[-1])


def position(purpose: str, seed: str, result_id: str) -> float:
    """Return a number in [0, 1) that is uniform over result ids and fixed for each.

    ``purpose`` makes two draws on one id independent; ``seed`` is the installation's own.
    """
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{result_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_drawn(purpose: str, seed: str, result_id: str, share: float) -> bool:
    """Tell whether a result belongs to the sample of this share; a larger share holds a smaller."""
    return position(purpose, seed, result_id) < share


@dataclass(frozen=True, slots=True)
class TaxonomyChange:
    """What becomes of decisions: ``carried`` maps an old label to a new one, those of ``reopened``
    labels are made again. ``reopen_none``: so are those that said no label fits, where the new
    taxonomy has a label that the old one had not."""

    carried: Mapping[str, str]
    reopened: tuple[str, ...]
    reopen_none: bool


def plan_change(old: Taxonomy, new: Taxonomy, mapping: Mapping[str, str]) -> TaxonomyChange:
    """Plan the change. A label that keeps its name and its description is carried over by itself;
    ``mapping`` says it of others, old to new; what is left is opened again.

    Raises ValueError for a mapping that names a label which is not there.
    """
    unknown_old = sorted(set(mapping) - set(old.names))
    unknown_new = sorted(set(mapping.values()) - set(new.names))
    if unknown_old:
        raise ValueError(f"the old taxonomy has no label {unknown_old[0]!r}: {list(old.names)}")
    if unknown_new:
        raise ValueError(f"the new taxonomy has no label {unknown_new[0]!r}: {list(new.names)}")
    described = {label.name: label.description for label in new.labels}
    carried = {
        label.name: label.name
        for label in old.labels
        if described.get(label.name) == label.description
    } | dict(mapping)
    reopened = tuple(name for name in old.names if name not in carried)
    added = set(new.names) - set(old.names) - set(mapping.values())
    return TaxonomyChange(carried, reopened, bool(added))
