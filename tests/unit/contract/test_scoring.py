"""From raw log-probabilities to one label, or a refusal."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.toy_adapter import LABELS as TOY_LABELS
from tests.support.toy_adapter import toy_head
from worker.contract import (
    Code,
    InvalidScores,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
)

CODES = {"a": Code("A", 1), "b": Code("B", 2), "c": Code("C", 3)}
LABELS = tuple(CODES)


def logs(*probabilities: float) -> dict[int, float]:
    return {
        number: math.log(p) if p else -math.inf for number, p in enumerate(probabilities, start=1)
    }


def test_the_label_with_the_most_probability_wins() -> None:
    """At temperature 1 the confidence is the share among the labels."""
    decision = decide_from_codes(logs(0.1, 0.6, 0.1), CODES, 1.0)
    assert decision.label == "b"
    assert decision.confidence == pytest.approx(0.75)
    assert decision.scores == pytest.approx({"a": 0.125, "b": 0.75, "c": 0.125})
    assert decision.off_label_mass == pytest.approx(0.2)


def test_a_temperature_softens_or_sharpens_and_keeps_the_order() -> None:
    """Calibration changes how sure the label is, not which it is."""
    soft, plain, sharp = (decide_from_codes(logs(0.2, 0.6, 0.1), CODES, t) for t in (4, 1, 0.2))
    assert soft.label == plain.label == sharp.label == "b"
    assert soft.confidence < plain.confidence < sharp.confidence
    assert soft.off_label_mass == plain.off_label_mass == sharp.off_label_mass


def test_off_label_mass_shows_what_fits_no_label() -> None:
    """However sure the label is among the labels, the model's doubt about all of them is seen."""
    decision = decide_from_codes(logs(0.009, 0.0005, 0.0005), CODES, 1.0)
    assert decision.confidence == pytest.approx(0.9)
    assert decision.off_label_mass == pytest.approx(0.99)


def test_ties_go_to_the_first_label() -> None:
    """The same input gives the same output on every machine."""
    assert decide_from_codes(logs(0.25, 0.25, 0.25), CODES, 1.0).label == "a"
    assert decide_from_codes(logs(0.0, 0.3, 0.3), CODES, 0.1).label == "b"


def test_a_label_of_no_probability_is_no_error() -> None:
    """Minus infinity is a number that a log-probability may have."""
    decision = decide_from_codes(logs(0.0, 1.0, 0.0), CODES, 2.0)
    assert decision.scores == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert decision.off_label_mass == 0.0


def test_rounding_over_one_is_taken_as_one() -> None:
    """Half-precision engines add up to a little over 1."""
    assert decide_from_codes(logs(0.5, 0.505, 0.005), CODES, 1.0).off_label_mass == 0.0


@pytest.mark.parametrize(
    ("given_logs", "problem"),
    [
        ({1: -1.0, 2: -2.0}, "no score for the code of label 'c'"),
        ({1: -1.0, 2: math.nan, 3: -1.0}, "score for label 'b' is nan"),
        ({1: -1.0, 2: -2.0, 3: 0.5}, "score for label 'c' is 0.5"),
        ({1: -1.0, 2: -2.0, 3: math.inf}, "score for label 'c' is inf"),
        ({1: -math.inf, 2: -math.inf, 3: -math.inf}, "every label a probability of zero"),
        ({1: -0.1, 2: -0.1, 3: -5.0}, "add up to 1.8"),
        ({}, "no score"),
    ],
)
def test_numbers_that_are_no_log_probabilities_are_refused(
    given_logs: dict[int, float], problem: str
) -> None:
    """A broken engine gives dead letters, never labels."""
    with pytest.raises(InvalidScores, match=problem):
        decide_from_codes(given_logs, CODES, 1.0)


@given(
    st.lists(st.floats(-200, 0.02), min_size=3, max_size=3),
    st.floats(0.01, 100),
)
def test_any_log_probabilities_give_a_distribution_or_a_refusal(
    values: list[float], temperature: float
) -> None:
    """Scores add up to 1, the label has the highest, and everything lies between 0 and 1."""
    given_logs = dict(enumerate(values, start=1))
    if sum(math.exp(value) for value in values) > 1.02:
        with pytest.raises(InvalidScores):
            decide_from_codes(given_logs, CODES, temperature)
        return
    decision = decide_from_codes(given_logs, CODES, temperature)
    assert sum(decision.scores.values()) == pytest.approx(1.0)
    assert decision.confidence == max(decision.scores.values()) == decision.scores[decision.label]
    assert all(0 <= score <= 1 for score in decision.scores.values())
    assert 0 <= (decision.off_label_mass or 0.0) <= 1


@given(st.dictionaries(st.integers(0, 5), st.floats()), st.floats(0.001, 1000))
def test_no_numbers_whatever_raise_anything_else(
    given_logs: dict[int, float], temperature: float
) -> None:
    """An engine cannot crash the worker by what it answers."""
    try:
        decision = decide_from_codes(given_logs, CODES, temperature)
    except InvalidScores:
        return
    assert decision.label in LABELS
    assert math.isfinite(decision.confidence)


def test_words_are_checked_against_the_labels() -> None:
    """Constrained or not: an answer outside the set is refused."""
    decision = decide_from_choice(" b\n", math.log(0.7), LABELS)
    assert decision.label == "b"
    assert decision.confidence == pytest.approx(0.7)
    assert decision.scores == {"b": decision.confidence}
    assert decision.off_label_mass is None
    for text in ("", "B", "bb", "a b", "a\nb"):
        with pytest.raises(InvalidScores, match="words that are no label"):
            decide_from_choice(text, -0.1, LABELS)


def test_a_refusal_of_words_does_not_repeat_them() -> None:
    """A model that copies the message must not bring it into the logs."""
    with pytest.raises(InvalidScores) as caught:
        decide_from_choice("my card is 4111", -0.1, LABELS)
    assert "4111" not in str(caught.value)


@given(st.floats())
def test_the_confidence_of_words_is_a_probability_or_a_refusal(logprob: float) -> None:
    """What cannot be a log-probability is refused, as it is for codes."""
    try:
        decision = decide_from_choice("a", logprob, LABELS)
    except InvalidScores:
        assume(True)
        assert math.isnan(logprob) or logprob > 0
        return
    assert 0 <= decision.confidence <= 1


def test_finer_outputs_are_summed_to_their_label() -> None:
    """Two outputs of one label that are each second win together."""
    logits = [math.log(p) for p in (0.3, 0.3, 0.35, 0.05)]
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, 1.0)
    assert decision.label == "billing"
    assert decision.scores == pytest.approx({"billing": 0.6, "delivery": 0.35, "other": 0.05})
    assert list(decision.scores) == list(TOY_LABELS)
    assert decision.confidence == decision.scores["billing"]
    assert decision.off_label_mass is None


def test_the_temperature_is_of_the_outputs_before_they_are_summed() -> None:
    """As it was fitted; the out-of-scope score is of the raw logits all the same."""
    logits = [2.0, 0.0, 1.0, -1.0]
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, 2.0)
    weights = [math.exp(logit / 2) for logit in logits]
    assert decision.confidence == pytest.approx((weights[0] + weights[1]) / sum(weights))
    assert decision.out_of_scope == pytest.approx(-math.log(sum(map(math.exp, logits))))


def test_out_of_scope_scores_rise_for_what_fits_no_output() -> None:
    """By both methods; a softmax cannot see it, since it does not know how large logits are."""
    for method in ("energy", "max-logit"):
        head = toy_head(out_of_scope=method)
        known = decide_from_logits([9.0, 1.0, 1.0, 1.0], head, TOY_LABELS, 1.0)
        strange = decide_from_logits([4.0, -4.0, -4.0, -4.0], head, TOY_LABELS, 1.0)
        assert known.confidence == pytest.approx(strange.confidence, abs=1e-3)
        assert known.out_of_scope is not None
        assert strange.out_of_scope is not None
        assert strange.out_of_scope > known.out_of_scope
    assert decide_from_logits([3.0, 1.0, 0.0, -2.0], head, TOY_LABELS, 1.0).out_of_scope == -3.0


def test_ties_between_labels_go_to_the_first() -> None:
    """Also where one of them has more outputs."""
    logits = [math.log(0.2), math.log(0.2), math.log(0.4), -50.0]
    tied = decide_from_logits([0.0] * 4, toy_head(), TOY_LABELS, 1.0)
    assert tied.label == "billing"
    assert decide_from_logits(logits, toy_head(), TOY_LABELS[::-1], 1.0).label == "delivery"


@given(st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=4), st.floats(0.01, 100))
def test_any_finite_logits_make_a_decision(logits: list[float], temperature: float) -> None:
    """No overflow, whatever the size; the scores are probabilities."""
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, temperature)
    assert sum(decision.scores.values()) == pytest.approx(1.0)
    assert 0 <= min(decision.scores.values()) <= max(decision.scores.values()) <= 1
    assert decision.confidence == max(decision.scores.values())


@pytest.mark.parametrize(
    "logits", [[], [1.0] * 3, [1.0] * 5, [1.0, math.nan, 0.0, 0.0], [math.inf, 0.0, 0.0, 0.0]]
)
def test_logits_that_are_no_answer_are_refused(logits: list[float]) -> None:
    """Of another head, or of arithmetic that broke down."""
    with pytest.raises(InvalidScores):
        decide_from_logits(logits, toy_head(), TOY_LABELS, 1.0)
