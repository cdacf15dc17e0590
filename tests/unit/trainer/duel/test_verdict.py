"""The verdict follows its printed rules, also when they say: ship the baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.duel.verdict import (
    PairedResult,
    choose_baseline,
    recommend,
    recommend_servable,
    tell_power,
)
from trainer.statistics.metrics import Discordance
from trainer.statistics.paired import non_inferiority_p

MESSAGES = 1500


def baseline(
    name: str, validated: float, lost: int, won: int, p: float, messages: int = MESSAGES
) -> PairedResult:
    """A baseline that alone is right on ``won`` messages, and the adapter alone on ``lost``."""
    return PairedResult(
        name=name,
        kind="baseline",
        accuracy=0.9 + (won - lost) / messages,
        validation_accuracy=validated,
        found=Discordance(lost, won, messages),
        p=p,
        not_worse_p=non_inferiority_p(Discordance(won, lost, messages), 0.01),
    )


WEAK = baseline("tfidf", 0.80, 200, 50, 0.001)
CLOSE = baseline("combined", 0.89, 24, 22, 0.80)
UNCLEAR = baseline("embeddings", 0.89, 45, 30, 0.10)
HOSTED = PairedResult("hosted", "recorded", 0.95, None, Discordance(10, 85, MESSAGES), 1e-9, 0.0)
HOSTED_EQUAL = PairedResult("hosted", "recorded", 0.91, None, Discordance(9, 24, MESSAGES), 0.2, 0)
BEATEN_BASE = PairedResult("base-prompted", "base", 0.3, None, Discordance(900, 0, 1500), 0.0, 1.0)


def test_an_adapter_that_beats_the_best_baseline_is_deployed() -> None:
    found = recommend([WEAK, BEATEN_BASE], 0.90)
    assert (found.candidate, found.conclusion, found.baseline) == ("adapter", "adapter", "tfidf")
    assert "it beats tfidf, the best baseline on validation, which reaches 80.0%" in found.reason


def test_a_baseline_that_is_shown_to_be_within_the_margin_is_shipped() -> None:
    found = recommend([WEAK, CLOSE], 0.90)
    assert (found.candidate, found.conclusion) == ("combined", "not_worse")
    assert "it is at most 0.9 points worse (95 %), within the margin of 1 point" in found.reason


def test_a_baseline_of_which_too_little_is_known_is_not_shipped_and_the_verdict_says_so() -> None:
    """How far it may be off, what so many messages tell, and how many it takes."""
    found = recommend([WEAK, UNCLEAR], 0.90)
    assert (found.candidate, found.conclusion) == ("adapter", "undecided")
    assert "not enough messages to tell whether embeddings (89.0%" in found.reason
    assert "may be up to 1.98 points worse (95 %)" in found.reason
    assert "1,500 messages tell 1.47 points; 1 point needs about 3,162." in found.reason


def test_the_baseline_is_chosen_on_validation_without_the_holdout() -> None:
    """Otherwise the luckiest of several would be tested; of equals the cheapest is."""
    lucky = baseline("tfidf", 0.88, 5, 40, 0.2)
    assert choose_baseline([HOSTED, lucky, CLOSE, UNCLEAR]) is CLOSE
    assert recommend([lucky, UNCLEAR], 0.90).candidate == "adapter"


def test_a_candidate_that_is_better_is_shipped_whatever_else_holds() -> None:
    found = recommend([CLOSE, HOSTED], 0.90)
    assert (found.candidate, found.conclusion) == ("hosted", "better")
    assert "leave the house" in found.reason


def test_a_hosted_model_that_is_only_equal_does_not_displace_the_adapter() -> None:
    found = recommend([WEAK, HOSTED_EQUAL], 0.90)
    assert found.candidate == "adapter"
    assert "hosted (91.0%)" in found.reason


@pytest.mark.parametrize(("margin", "wanted"), [(0.0197, "adapter"), (0.0199, "embeddings")])
def test_the_margin_decides_where_the_interval_ends(margin: float, wanted: str) -> None:
    """The verdict's "up to 1.98 points worse" is where it turns."""
    counts = Discordance(UNCLEAR.found.b_only, UNCLEAR.found.a_only, MESSAGES)
    found = PairedResult(
        "embeddings", "baseline", 0.89, 0.89, UNCLEAR.found, 0.1, non_inferiority_p(counts, margin)
    )
    assert recommend([found], 0.90, margin).candidate == wanted


def test_what_a_holdout_can_tell_is_told_before_it_is_opened() -> None:
    told = tell_power(800, 0.01)
    assert "on up to 0.9% of the messages" in told
    assert "it passes 34% of the time; so many messages then tell 2.05 points" in told
    assert "1 point takes 3,162" in told


COUNTS = replace(CLOSE, name="combined", not_served="no engine counts words")


def test_what_no_worker_serves_is_said_to_be_one_and_the_next_best_is_named() -> None:
    """By the same rules among those that one can serve."""
    encoder = replace(baseline("encoder", 0.88, 20, 22, 0.9), name="encoder")
    results = [WEAK, COUNTS, encoder]
    first = recommend(results, 0.90)
    assert first.candidate == "combined"
    found = recommend_servable(results, first, 0.90)
    assert found is not None
    assert (found.candidate, found.baseline) == ("encoder", "encoder")
    assert found.reason.startswith(
        "combined is not served: no engine counts words. Of what is: Ship"
    )


def test_where_nothing_else_is_served_the_adapter_is() -> None:
    first = recommend([COUNTS], 0.90)
    found = recommend_servable([COUNTS], first, 0.90)
    assert found is not None
    assert found.candidate == "adapter"
    assert "there is the adapter alone" in found.reason


def test_what_is_served_needs_no_second_choice() -> None:
    assert recommend_servable([WEAK, CLOSE], recommend([WEAK, CLOSE], 0.90), 0.90) is None
    beaten = replace(WEAK, not_served="no engine counts words")
    assert recommend_servable([beaten], recommend([beaten], 0.90), 0.90) is None
