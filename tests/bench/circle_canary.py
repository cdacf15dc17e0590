"""A canary beside the adapter in service on simulated traffic, judged as by the worker."""

from __future__ import annotations

import random
from collections.abc import Sequence

from trainer.artifacts.evaluation import Prediction
from worker.core.share import place_of
from worker.lifecycle.canary_judge import BLOCK, ArmComparison, JudgePolicy
from worker.records.types import Record, TopicPartition

POLICY = JudgePolicy()
TRAFFIC = 20_000
_INPUT = TopicPartition("messages", 0)


def stopped_after(
    main: Sequence[Prediction],
    canary: Sequence[Prediction],
    digest: str,
    share: float,
    seed: int,
    *,
    policy: JudgePolicy = POLICY,
    traffic: int = TRAFFIC,
) -> int | None:
    """Return after how many of the canary's labels its judge stops it; None where it never does.

    ``main`` and ``canary`` are both adapters' answers to the same messages. These are drawn with
    replacement, each as of a customer of its own, and dealt to the arms by key as the worker does,
    ``digest`` the canary's.
    """
    answers = {each.id: each for each in canary}
    draw = random.Random(seed)
    comparison = ArmComparison(policy)
    for number in range(traffic):
        key = b"%d-%d" % (seed, number)
        by_canary = place_of(Record(_INPUT, number, key, b""), f"canary {digest}") < share
        message = main[draw.randrange(len(main))]
        answer = answers[message.id] if by_canary else message
        comparison.add(key, canary=by_canary, review=answer.review, confidence=answer.confidence)
        if number % BLOCK == BLOCK - 1 and comparison.worse:
            return comparison.messages
    return None
