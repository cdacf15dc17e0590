"""How much error a test may spend that is repeated on the same messages."""

from __future__ import annotations

from trainer.statistics.metrics import ALPHA


def alpha_of(turn: int, alpha: float = ALPHA) -> float:
    """Return the level of the test at its ``turn`` (from 1): alpha / (turn * (turn + 1)).

    These levels add up to ``alpha`` however often the test is repeated, so that over the whole
    sequence it errs at most that often (alpha spending, as of Foster and Stine 2008, Journal of the
    Royal Statistical Society B 70:429; Blum and Hardt 2015, arXiv 1502.04585, for hold-outs). The
    first tests get the most: a hold-out is at its best before it has chosen anything.
    """
    return alpha / (turn * (turn + 1))
