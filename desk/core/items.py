"""The rules about items: queues, opinions, samples, changes of the taxonomy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from worker.contract.scoring import ReviewReason
from worker.contract.taxonomy import Taxonomy

Order = Literal["oldest", "newest", "doubtful"]
"""By time of arrival, or the least confident first."""

Origin = Literal["review", "audit", "check", "holdout", "learn"]
"""Why an item is here.

review: the model was unsure; audit: drawn for the audit sample. In a batch of tasks, check: the
dataset's label is suspected; holdout: the hold-out's labels are audited; learn: its label would
teach the model most.
"""

BLIND_ORIGINS: frozenset[Origin] = frozenset({"audit", "holdout"})
"""Items of these are decided without seeing any label."""

REASON_BITS: dict[ReviewReason, int] = {
    "low_confidence": 1,
    "off_label_mass": 2,
    "out_of_scope": 4,
    "disagreement": 8,
}
"""Reasons as bits of a number: one index then serves every combination."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A choice of items. None means any.

    ``reason`` and ``label`` are the model's, and ``below`` is above its confidence (0 to 1);
    ``min_age_s`` is since the item came; ``words`` are in the message; a ``share`` of (1, 3) is the
    first of three equal parts. Without a ``batch_id`` the queue holds the items from Kafka and no
    tasks. A queue with ``reason``, ``label``, ``below`` or
    ``words`` holds no blind items: being in it would give their label away, or hint at it.

    Raises ValueError for an age with the order by confidence: no index has both, and reviewers
    would wait.
    """

    reason: ReviewReason | None = None
    label: str | None = None
    adapter_digest: str | None = None
    origin: Origin | None = None
    min_age_s: float | None = None
    order: Order = "oldest"
    batch_id: int | None = None
    below: float | None = None
    words: str = ""
    share: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.min_age_s is not None and self.order == "doubtful":
            raise ValueError("an age goes with the orders by time: oldest or newest")

    @property
    def reveals_label(self) -> bool:
        """Whether being in this queue reveals the model's label, or hints at one."""
        by_machine = (self.reason, self.label, self.below)
        is_chosen = any(each is not None for each in by_machine)
        return is_chosen or bool(self.words) or self.order == "doubtful"


def reason_bits(reasons: tuple[ReviewReason, ...]) -> int:
    """Return the reasons as one number."""
    return sum(REASON_BITS[reason] for reason in set(reasons))


def values_with(reason: ReviewReason) -> tuple[int, ...]:
    """Return all numbers of ``reason_bits`` that include this reason."""
    return tuple(n for n in range(1, 1 << len(REASON_BITS)) if n & REASON_BITS[reason])


DecisionKind = Literal["label", "none", "skip", "flag"]
"""What a reviewer can do with an item: give an opinion, leave it to others, or ask an
adjudicator."""

State = Literal["fetching", "held", "open", "second", "dispute", "decided", "closed"]
"""The state of an item.

fetching: its text is not here yet; held: its taxonomy is not the desk's; open: no opinion yet;
second: waits for a second reviewer; dispute: waits for an adjudicator; decided; closed: cannot be
decided, because its text is gone.
"""


class Opinion(NamedTuple):
    """A reviewer's opinion, or an adjudicator's (``final``). ``label`` is None if none fits."""

    label: str | None
    final: bool = False


def state_of(
    wanted: int, opinions: Sequence[Opinion], *, flagged: bool = False
) -> tuple[Literal["open", "second", "dispute", "decided"], int | None]:
    """Return an item's state by its opinions, oldest first, of which ``wanted`` are needed; and the
    index of the opinion that decides it.

    An adjudicator's opinion decides. Without one, a flag makes a dispute, and so do opinions that
    differ.
    """
    final = [at for at, opinion in enumerate(opinions) if opinion.final]
    if final:
        return "decided", final[-1]
    if flagged or len({opinion.label for opinion in opinions}) > 1:
        return "dispute", None
    if not opinions:
        return "open", None
    if len(opinions) < wanted:
        return "second", None
    return "decided", len(opinions) - 1


def position(purpose: str, seed: str, result_id: str) -> float:
    """Return a number in [0, 1), uniform over result ids and the same each time.

    ``purpose`` makes two draws on one id independent; ``seed`` is the installation's own.
    """
    # A hash, not a random number: read again, or by another replica, a result is drawn alike.
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{result_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_drawn(purpose: str, seed: str, result_id: str, share: float) -> bool:
    """Whether a result is in the sample of this share. A larger share includes a smaller one."""
    return position(purpose, seed, result_id) < share


@dataclass(frozen=True, slots=True)
class TaxonomyChange:
    """What happens to decisions: ``carried`` maps old labels to new ones; items with a label of
    ``reopened`` are decided again. So are those that fit no label if ``reopen_none``, because the
    new taxonomy has a label that the old one did not have."""

    carried: Mapping[str, str]
    reopened: tuple[str, ...]
    reopen_none: bool


def plan_change(old: Taxonomy, new: Taxonomy, mapping: Mapping[str, str]) -> TaxonomyChange:
    """Plan the change. Labels that keep name and description are carried over, and those of
    ``mapping`` (old to new). Items with other labels are opened again.

    Raises ValueError for a mapping that names an unknown label.
    """
    unknown_old = sorted(set(mapping) - set(old.names))
    unknown_new = sorted(set(mapping.values()) - set(new.names))
    if unknown_old:
        raise ValueError(
            f"the old taxonomy has no label {unknown_old[0]!r}: it has {', '.join(old.names)}"
        )
    if unknown_new:
        raise ValueError(
            f"the new taxonomy has no label {unknown_new[0]!r}: it has {', '.join(new.names)}"
        )
    described = {label.name: label.description for label in new.labels}
    carried = {
        label.name: label.name
        for label in old.labels
        if described.get(label.name) == label.description
    } | dict(mapping)
    reopened = tuple(name for name in old.names if name not in carried)
    added = set(new.names) - set(old.names) - set(mapping.values())
    return TaxonomyChange(carried, reopened, bool(added))
