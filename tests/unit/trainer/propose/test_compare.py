"""The recommendation of a proposal, and how often it is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.bench.judges_worlds import (
    Messages,
    make_adapter,
    naive_yes,
    pairs_of,
    says_yes,
    threshold_of,
)
from trainer.propose.compare import (
    ALONE,
    NEW_HOLDOUT,
    OLD_HOLDOUT,
    REVIEW,
    SUREST,
    Compared,
    compare_answers,
    judge,
)
from trainer.statistics.metrics import Discordance
from trainer.statistics.paired import not_wrong_unseen, paired_interval
from trainer.store.rules import GateVerdict, criterion
from worker.contract.exchange import Figure

PASSED = GateVerdict((criterion("accuracy", "0.9", "0.95", passed=True),), None, None)
FAILED = GateVerdict((criterion("accuracy", "0.9", "0.85", passed=False),), None, None)


def compared(a: int, b: int, total: int = 1000, name: str = OLD_HOLDOUT) -> Compared:
    found = Discordance(a, b, total)
    low, high = paired_interval(found)
    new = 0.9 + found.difference
    return Compared(Figure(name, total, new, 0.9, found.difference, low, high), found)


def test_verdicts_in_words() -> None:
    better, equal, worse = compared(40, 10), compared(20, 20), compared(10, 40)
    fewer = compared(60, 20, name=REVIEW)
    more = compared(20, 60, name=REVIEW)
    assert judge([better], PASSED, {}).verdict == "publish"
    assert judge([equal], PASSED, {}).verdict == "not_worth_it"
    assert judge([worse], PASSED, {}).verdict == "refused"
    assert judge([better], FAILED, {}).verdict == "refused"
    assert judge([equal, fewer], PASSED, {}).verdict == "not_worth_it"
    sharper = compared(40, 10, name=SUREST)
    assert judge([equal, fewer, sharper], PASSED, {}).verdict == "publish"
    assert judge([equal, more], PASSED, {}).verdict == "not_worth_it"
    assert judge([better, more], PASSED, {}).verdict == "publish"
    assert judge([better, compared(10, 40, name=NEW_HOLDOUT)], PASSED, {}).verdict == "refused"
    told = judge([better], FAILED, {"decisions_without_text": 3})
    assert any("40 are right only with the new one" in reason for reason in told.reasons_for)
    assert any("The gate refuses it: accuracy, 0.85" in each for each in told.reasons_against)
    assert any("3 decisions could not be used" in each for each in told.reasons_against)


def test_one_that_is_righter_but_leaves_more_to_people_is_no_yes() -> None:
    """The number of messages that are right without review decides."""
    better, more = compared(40, 10), compared(20, 400, name=REVIEW)
    told = judge([better, more, compared(10, 300, name=ALONE)], PASSED, {})
    assert told.verdict == "not_worth_it"
    assert "review" in told.headline
    assert any(each.startswith("Fewer messages labelled right") for each in told.reasons_against)
    assert judge([better, more, compared(30, 28, name=ALONE)], PASSED, {}).verdict == "publish"
    alone = compared(300, 10, name=ALONE)  # no reason of its own: it follows from the two
    assert judge([compared(20, 20), alone], PASSED, {}).verdict == "not_worth_it"


def test_a_holdout_that_judged_many_is_told() -> None:
    often, seldom = (judge([compared(20, 20)], PASSED, {}, times) for times in (7, 5))
    told = [each for each in often.reasons_against if "used for 7 adapters" in each]
    assert len(told) == 1
    assert "audit" in told[0]
    assert set(seldom.reasons_against) == set(often.reasons_against) - set(told)


def test_the_same_answers_with_a_lower_threshold_are_no_yes() -> None:
    """Fewer messages go to review, and more wrong labels are not seen: nothing is better."""
    rng = np.random.default_rng(4)
    holdout = Messages.draw(rng, 1500, grouped=False)
    validation = Messages.draw(rng, 800, grouped=False)
    current = make_adapter(rng, validation, holdout)
    lower = replace(current, threshold=threshold_of(0.91))
    assert naive_yes(lower, current)
    assert not says_yes(lower, current, validation, holdout, 1)
    pairs = pairs_of(lower, current)
    asked = [compare_answers(name, *pair, None) for name, pair in pairs.items()]
    told = judge(asked, PASSED, {})
    assert told.verdict == "not_worth_it"
    assert any("messages go to review" in reason for reason in told.reasons_for)


def test_one_that_is_surer_of_the_right_answers_is_a_yes() -> None:
    rng = np.random.default_rng(5)
    right = rng.random(1500) < 0.93
    blind, sharp = rng.random(1500), rng.random(1500) + 0.3 * right
    pair = not_wrong_unseen(sharp, right, 1000), not_wrong_unseen(blind, right, 1000)
    compared_ = [
        compare_answers(OLD_HOLDOUT, right, right, None),
        compare_answers(SUREST, *pair, None, turned=True),
    ]
    told = judge(compared_, PASSED, {})
    assert told.verdict == "publish"
    assert any(reason.startswith("Fewer wrong labels") for reason in told.reasons_for)


@pytest.mark.slow
def test_over_a_sequence_an_equal_adapter_is_rarely_proposed() -> None:
    """At most once in twenty sequences of 24 proposals. With the same level for each proposal, four
    sequences in ten would have at least one."""
    draw = np.random.default_rng(4)
    sequences, wrongly, before = 200, 0, 0
    for _ in range(sequences):
        said = each_time = False
        for turn in range(1, 25):
            counts = draw.binomial(60, 0.5, size=2).tolist()
            pairs = [
                compared(first, 60 - first, name=name)
                for first, name in zip(counts, (OLD_HOLDOUT, SUREST), strict=True)
            ]
            said |= judge(pairs, PASSED, {}, turn + 1).verdict == "publish"
            each_time |= judge(pairs, PASSED, {}).verdict == "publish"
        wrongly += said
        before += each_time
    assert wrongly <= 16  # one in twenty, and the chance of so many
    assert before > 60
