"""Stop a canary that does worse than the adapter that it would replace.

The two are compared after every message. An ordinary significance test that is repeated so often
rejects sooner or later, whatever is true. This one may be repeated, because its evidence is a
product of fair bets (an e-process; Ville 1939; overview: Ramdas et al. 2023, arXiv 2210.01948). If
the arms do not differ, the probability that the evidence ever reaches 1 / alpha is at most alpha,
over any number of messages.

Messages are compared in blocks, in the order in which they arrive. A block ends at a fixed size,
whatever its content. Given the number of marked messages in a block, all choices of the marked ones
are equally likely if the arms do not differ. The bet is on how many of them the first arm has (the
conditional test of an odds ratio: Fisher's noncentral hypergeometric distribution). Nothing is
assumed about the share of marks, which may drift from block to block in both arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from worker.core.arms import AdapterRouter
from worker.core.assignment import CompletedRecord
from worker.core.events import LoopEvent, Published
from worker.core.labeller import ServingAdapter
from worker.lifecycle.events import AdapterEvents, StopReason
from worker.records.types import Classified, Postponed, Rejected

BLOCK = 20
"""Messages in a block; see the module's docstring."""

_LOWEST = 0.25  # this share of a block is marked as low confidence
_KEYS = 65_536
_DIGEST_BYTES = 16  # keys are stored as digests, because a key may have any size

# The odds ratios that are bet on with equal stakes. The evidence is the mean of their products.
_ODDS = (1.25, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """Stop a canary at evidence 1 / ``false_positive_rate``, but not before it has labelled or
    rejected ``min_messages``.

    The rate bounds the probability that a canary as good as main is ever stopped (Ville's
    inequality): one in a hundred trials, not one in a hundred looks. Evidence from a few messages
    is valid too; the minimum prevents that one unusual minute ends a trial.
    """

    min_messages: int = 200
    false_positive_rate: float = 0.01


class ArmComparison:
    """Compares a canary with a main adapter: more messages for review, or less confidence?

    A rejected answer counts as the worst result: review, with a confidence of 0. A third kind of
    evidence for rejections would weaken the other two.

    Only the first message of each key counts, because a customer's messages are alike and arms are
    chosen by key. The mean of the two kinds of evidence is evidence again.
    """

    def __init__(self, policy: JudgePolicy) -> None:
        self._policy = policy
        self._block: list[tuple[bool, bool, float]] = []
        self._seen: dict[bytes, None] = {}
        self._for_review = self._rejected = 0
        self.messages = 0
        """Counted messages that the canary has labelled or rejected."""
        self.review = Evidence()
        self.confidence = Evidence()

    @property
    def value(self) -> float:
        """The evidence that the canary is worse."""
        return (self.review.value + self.confidence.value) / 2

    @property
    def worse(self) -> StopReason | None:
        """Why the canary should stop, if it should."""
        policy = self._policy
        if self.messages < policy.min_messages:
            return None
        if self.value < 1 / policy.false_positive_rate:
            return None
        if 2 * self._rejected > self._for_review:
            return "rejected"
        return "review" if self.review.value >= self.confidence.value else "confidence"

    def add(self, unit: bytes, *, canary: bool, review: bool, confidence: float | None) -> None:
        """Add one result. ``unit`` is the message's key, or its id if it has no key.

        ``confidence`` is None if the answer was rejected.
        """
        digest = blake2b(unit, digest_size=_DIGEST_BYTES).digest()
        if digest in self._seen:
            return
        self._seen[digest] = None
        if len(self._seen) > _KEYS:
            del self._seen[next(iter(self._seen))]
        rejected = confidence is None
        review = review or rejected
        self.messages += canary
        self._for_review += canary and review
        self._rejected += canary and rejected
        self._block.append((canary, review, confidence or 0.0))
        if len(self._block) == BLOCK:
            self._close()

    def _close(self) -> None:
        block, self._block = self._block, []
        low = marked_lowest([confidence for _, _, confidence in block], _LOWEST)
        first = sum(canary for canary, _, _ in block)
        for evidence, marks in (
            (self.review, [review for _, review, _ in block]),
            (self.confidence, low),
        ):
            in_first = sum(
                mark for mark, (canary, _, _) in zip(marks, block, strict=True) if canary
            )
            evidence.add(first, in_first, len(block) - first, sum(marks) - in_first)


class CanaryJudge:
    """A listener of the loop that compares each judged arm's committed records with its fallback's,
    and stops an arm that does worse."""

    def __init__(
        self, router: AdapterRouter, events: AdapterEvents, policy: JudgePolicy = JudgePolicy()
    ) -> None:
        self._router = router
        self._events = events
        self._policy = policy
        self._comparisons: dict[tuple[ServingAdapter, ServingAdapter], ArmComparison] = {}

    def __call__(self, event: LoopEvent) -> None:
        """Compare published records if there is a judged arm."""
        if not isinstance(event, Published):
            return
        split = self._router.split
        judged = [arm for arm in split.arms if arm.role.judged]
        pairs = [(arm.adapter, split.fallback_of(arm).adapter) for arm in judged]
        # A new adapter in either arm starts a new comparison: old evidence is not about it.
        self._comparisons = {
            pair: self._comparisons.get(pair) or ArmComparison(self._policy) for pair in pairs
        }
        for arm, (canary, main) in zip(judged, pairs, strict=True):
            comparison = self._comparisons[canary, main]
            _add(comparison, event.batch, canary, main)
            if (why := comparison.worse) is not None:
                detail = f"after {comparison.messages} messages, evidence {_evidence(comparison)}"
                self._events.stop(arm, why, detail)
                self._router.stop(canary)


def _add(
    comparison: ArmComparison,
    batch: Sequence[CompletedRecord],
    canary: ServingAdapter,
    main: ServingAdapter,
) -> None:
    for completed in batch:
        record, outcome = completed.record, completed.outcome
        if completed.adapter not in (canary, main):
            continue
        if isinstance(outcome, Classified):
            review, confidence = bool(outcome.review), outcome.decision.confidence
        elif isinstance(outcome, Postponed) or (
            isinstance(outcome, Rejected) and outcome.stage == "engine"
        ):
            review, confidence = True, None
        else:  # the adapter is not to blame for an unreadable record
            continue
        comparison.add(
            record.id.encode() if record.key is None else record.key,
            canary=completed.adapter is canary,
            review=review,
            confidence=confidence,
        )


def _evidence(comparison: ArmComparison) -> str:
    review, confidence = comparison.review.value, comparison.confidence.value
    return f"{comparison.value:.3g} (review {review:.3g}, confidence {confidence:.3g})"


class Evidence:
    """Evidence that marks are more frequent in the first arm than in the second."""

    def __init__(self) -> None:
        self._logs = [0.0] * len(_ODDS)

    @property
    def value(self) -> float:
        """The evidence: 1 at the start, and at most 1 on average if the arms do not differ."""
        highest = max(self._logs)
        mean = sum(math.exp(log - highest) for log in self._logs) / len(self._logs)
        return math.exp(min(700.0, highest + math.log(mean)))  # exp(710) overflows

    def add(self, first: int, first_marked: int, second: int, second_marked: int) -> None:
        """Add a block: the number of messages of each arm, and how many of them are marked."""
        marked = first_marked + second_marked
        least, most = max(0, marked - second), min(first, marked)
        ways = [
            math.comb(first, in_first) * math.comb(second, marked - in_first)
            for in_first in range(least, most + 1)
        ]
        total = sum(ways)
        for index, odds in enumerate(_ODDS):
            expected = sum(
                count / total * odds ** (in_first - first_marked)
                for in_first, count in enumerate(ways, least)
            )
            self._logs[index] -= math.log(expected)


def marked_lowest(values: Sequence[float], share: float) -> list[bool]:
    """Mark the lowest ``share`` of a block (rounded down, at least one), whatever their arm.

    Of equal values the earlier ones are marked, which does not depend on their arm either.
    """
    count = max(1, int(len(values) * share))
    lowest = sorted(range(len(values)), key=lambda at: (values[at], at))[:count]
    return [at in lowest for at in range(len(values))]
