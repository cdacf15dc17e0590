"""Choose the confidence from which a small model may answer, so that the cascade is not worse than
the large model. Arrays are over the same messages; shares are between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.statistics.calibration import Bools, Floats
from trainer.statistics.metrics import ALPHA, Discordance, Groups, count_discordant
from trainer.statistics.paired import non_inferiority_p, required_messages

LEAST_SHARE = 0.03
"""A stage that answers less is not worth its memory, start-up time and maintenance."""

_STEPS = 25


@dataclass(frozen=True, slots=True)
class Choice:
    """The small model answers from confidence ``sure_from`` on, a ``share`` of the messages.

    ``found`` compares the cascade (a) with the large model (b); ``p_value`` is of "worse by the
    margin or more".
    """

    sure_from: float
    share: float
    found: Discordance
    p_value: float


def choose_threshold(
    confidence: Floats,
    may_answer: Bools,
    small: Bools,
    large: Bools,
    margin: float,
    groups: Groups | None = None,
) -> Choice | None:
    """Return the lowest confidence from which the small model may answer; None if not even its most
    confident answers are shown to be harmless.

    ``small`` and ``large`` say where each model is right, ``may_answer`` where only its confidence
    can keep the small one from answering, ``groups`` which messages belong together.

    Learn then test (Angelopoulos et al. 2021, arXiv 2110.01052): growing parts, the most confident
    messages first, are tested in a fixed sequence by the score test of non-inferiority at 5 %, and
    the first failure ends the sequence. A cascade that is truly worse by the margin or more passes
    in at most 5 % of all validation sets, because the first such part has to pass by chance; no
    correction for the number of parts is needed.
    """
    # Messages that the small model may not answer sort last and are cut off.
    order = np.argsort(-np.where(may_answer, confidence, -1.0), kind="stable")
    order = order[: int(may_answer.sum())]
    if not len(order):
        return None
    sure = confidence[order]
    # A threshold cannot separate messages of equal confidence: a part ends before a lower one.
    ends = np.flatnonzero(np.append(sure[:-1] > sure[1:], True)) + 1
    wanted = np.ceil(len(sure) * np.arange(1, _STEPS + 1) / _STEPS)
    chosen = None
    for end in ends[np.unique(np.searchsorted(ends, wanted))]:
        part = order[:end]
        whole = large.copy()
        whole[part] = small[part]
        found = count_discordant(whole, large, groups)
        p_value = non_inferiority_p(found, margin)
        if p_value >= ALPHA:
            break
        chosen = Choice(float(sure[end - 1]), end / len(confidence), found, p_value)
    return chosen


def messages_needed(
    confidence: Floats, may_answer: Bools, small: Bools, large: Bools, margin: float
) -> int:
    """Return about how many validation messages it takes to accept the smallest part, if the models
    differ on it as often as here (at least on one message)."""
    count = max(1, int(may_answer.sum()) // _STEPS)
    part = np.argsort(-np.where(may_answer, confidence, -1.0), kind="stable")[:count]
    differ = int((small[part] != large[part]).sum())
    return required_messages(max(1, differ) / len(confidence), margin)


def combine(confidence: Floats, may_answer: Bools, sure_from: float) -> Bools:
    """Return where the small model answers."""
    answers: Bools = may_answer & (confidence >= sure_from)
    return answers
