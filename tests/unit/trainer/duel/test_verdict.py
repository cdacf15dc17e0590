"""The verdict follows its rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.duel.verdict import (
    PairedResult,
    choose_baseline,
    describe_power,
    judge_replacements,
    recommend,
    recommend_servable,
)
from trainer.statistics.metrics import Discordance
from trainer.statistics.paired import non_inferiority_p

MESSAGES = 1500


def baseline(
    name: str, validated: float, lost: int, won: int, p: float, messages: int = MESSAGES
) -> PairedResult:
    """Return a baseline that only it is right on ``won`` messages, and only the adapter on
    ``lost``."""
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
BEATEN_BASE = PairedResult("base-prompted", "base", 0.3, None, Discordance(900, 0, 1500), 0.0, 1.0)


def test_an_adapter_that_beats_the_best_baseline_is_deployed() -> None:
    found = recommend([WEAK, BEATEN_BASE], 0.90)
    assert (found.candidate, found.conclusion, found.baseline) == ("adapter", "adapter", "tfidf")
    assert "beats tfidf, the best baseline on validation, with 80.0%" in found.reason


def test_a_baseline_that_is_shown_to_be_within_the_margin_is_shipped() -> None:
    found = recommend([WEAK, CLOSE], 0.90)
    assert (found.candidate, found.conclusion) == ("combined", "not_worse")
    assert "at most 0.9 points worse (95 %), within the margin of 1 point" in found.reason


def test_with_too_few_messages_the_adapter_stays_and_the_verdict_says_how_many_it_takes() -> None:
    found = recommend([WEAK, UNCLEAR], 0.90)
    assert (found.candidate, found.conclusion) == ("adapter", "undecided")
    assert "may be up to 1.98 points worse (95 %)" in found.reason
    assert "1,500 messages can show 1.47 points; 1 point takes about 3,162." in found.reason


def test_the_baseline_is_chosen_on_validation_without_the_holdout() -> None:
    """Otherwise the luckiest would be tested. The cheapest wins among equals."""
    lucky = baseline("tfidf", 0.88, 5, 40, 0.2)
    assert choose_baseline([HOSTED, lucky, CLOSE, UNCLEAR]) is CLOSE
    assert recommend([lucky, UNCLEAR], 0.90).candidate == "adapter"


def test_a_better_candidate_is_always_shipped_and_a_hosted_one_that_is_equal_never() -> None:
    equal = replace(HOSTED, accuracy=0.91, found=Discordance(9, 24, MESSAGES), p=0.2)
    assert recommend([WEAK, equal], 0.90).candidate == "adapter"
    found = recommend([CLOSE, HOSTED], 0.90)
    assert (found.candidate, found.conclusion) == ("hosted", "better")
    assert "messages leave your systems" in found.reason


@pytest.mark.parametrize(("margin", "wanted"), [(0.0197, "adapter"), (0.0199, "embeddings")])
def test_the_margin_decides_where_the_interval_ends(margin: float, wanted: str) -> None:
    """The verdict's "up to 1.98 points worse" is where it turns."""
    counts = Discordance(UNCLEAR.found.b_only, UNCLEAR.found.a_only, MESSAGES)
    found = PairedResult(
        "embeddings", "baseline", 0.89, 0.89, UNCLEAR.found, 0.1, non_inferiority_p(counts, margin)
    )
    assert recommend([found], 0.90, margin).candidate == wanted


def test_the_power_of_a_holdout_in_words() -> None:
    text = describe_power(800, 0.01)
    assert "on at most 0.9% of the messages" in text
    assert "it passes 34% of the time; the hold-out can then show 2.05 points" in text
    assert "1 point takes 3,162" in text


def elsewhere(lost: int, won: int, p: float, name: str = "hosted") -> PairedResult:
    """A model that runs elsewhere; only the adapter is right on ``won`` messages."""
    found = Discordance(won, lost, MESSAGES)
    return PairedResult(name, "recorded", 0.9 + (lost - won) / MESSAGES, None, found, p, 1.0)


@pytest.mark.parametrize(
    ("lost", "won", "p", "conclusion", "words"),
    [
        (20, 60, 0.0001, "better", "The adapter can replace hosted: its accuracy is 90.0%"),
        (20, 22, 0.8, "not_worse", "it is less than 1 point worse (p = 0.0066)"),
        (60, 20, 0.0001, "worse", "The adapter is less accurate than hosted"),
        (40, 30, 0.3, "undecided", "It takes about"),
        # Shown to be behind, and shown to be behind by less than the margin: it can replace it.
        (5, 0, 0.04, "not_worse", "can replace hosted"),
        # More right answers, and too few messages to say so.
        (100, 103, 0.9, "undecided", "may be up to"),
    ],
)
def test_a_model_that_runs_elsewhere_is_replaced_if_the_adapter_is_shown_to_be_within_the_margin(
    lost: int, won: int, p: float, conclusion: str, words: str
) -> None:
    (found,) = judge_replacements([WEAK, elsewhere(lost, won, p)], 0.90, 0.01)
    assert (found.candidate, found.conclusion) == ("hosted", conclusion)
    assert words in found.reason


def test_several_models_are_judged_together() -> None:
    """A p-value of 3 % alone is no longer one with two others."""
    one = elsewhere(18, 20, 0.9)
    alone = judge_replacements([one], 0.90, 0.0085)[0]
    several = [one, *(elsewhere(40, 38, 0.9, f"other-{at}") for at in range(5))]
    among = judge_replacements(several, 0.90, 0.0085)[0]
    assert (alone.conclusion, among.conclusion) == ("not_worse", "undecided")
    assert among.not_worse_p == pytest.approx(6 * alone.not_worse_p)


COUNTS = replace(CLOSE, name="combined", not_served="no engine counts words")


def test_if_no_worker_serves_the_winner_the_rules_apply_to_the_others() -> None:
    encoder = replace(baseline("encoder", 0.88, 20, 22, 0.9), name="encoder")
    results = [WEAK, COUNTS, encoder]
    first = recommend(results, 0.90)
    assert first.candidate == "combined"
    found = recommend_servable(results, first, 0.90)
    assert found is not None
    assert (found.candidate, found.baseline) == ("encoder", "encoder")
    assert found.reason.startswith(
        "combined is not served: no engine counts words. Among the others: Ship"
    )


def test_where_nothing_else_is_served_the_adapter_is() -> None:
    first = recommend([COUNTS], 0.90)
    found = recommend_servable([COUNTS], first, 0.90)
    assert found is not None
    assert found.candidate == "adapter"
    assert "Only the adapter can be served" in found.reason


def test_a_winner_that_is_served_needs_no_second_choice() -> None:
    assert recommend_servable([WEAK, CLOSE], recommend([WEAK, CLOSE], 0.90), 0.90) is None
    beaten = replace(WEAK, not_served="no engine counts words")
    assert recommend_servable([beaten], recommend([beaten], 0.90), 0.90) is None
