"""From raw log-probabilities to one label, or a refusal."""

import math
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.toy_adapter import LABELS as TOY_LABELS
from tests.support.toy_adapter import encode_control, toy_head
from worker.contract import (
    Code,
    ContractError,
    Decision,
    InvalidScores,
    Thresholds,
    choose_codes,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
    review_reasons,
)
from worker.contract.scoring import check_codes

# --- Label codes ---


CODE_LABELS = ("a", "b", "c")


def choose(
    encode: object = encode_control, labels: tuple[str, ...] = CODE_LABELS
) -> dict[str, Code]:
    return choose_codes(labels, "</s>=", encode)  # type: ignore[arg-type]


def test_each_label_gets_a_token_of_its_own() -> None:
    codes = choose()
    assert [(name, code.text) for name, code in codes.items()] == [
        ("a", "A"),
        ("b", "B"),
        ("c", "C"),
    ]
    assert check_codes(CODE_LABELS, codes, "</s>=", encode_control) is None


def test_characters_that_are_not_one_token_are_passed_over() -> None:

    def encode(text: str) -> list[int]:
        return encode_control(text.replace("=A", "=\u1234").replace("B", "xy"))

    glued = choose(lambda text: encode_control(text.replace("=A", "\u1234")))
    assert [code.text for code in glued.values()] == ["B", "C", "D"]
    assert [code.text for code in choose(encode).values()] == ["A", "C", "D"]


def test_two_characters_of_one_token_are_not_two_codes() -> None:
    folding = lambda text: encode_control(text.lower())  # noqa: E731
    many = tuple(string.ascii_lowercase) + tuple(string.digits)
    codes = choose_codes(many, "</s>=", folding)
    assert len({code.token_id for code in codes.values()}) == len(many) == 36
    with pytest.raises(ContractError, match="offers 36 one-token codes and there are 37 labels"):
        choose_codes((*many, "one more"), "</s>=", folding)


def test_more_labels_than_letters_get_other_single_tokens() -> None:
    labels = tuple(f"l{number}" for number in range(65))
    offered = ("A", " ", "\n", "\x00", "\ufffd", "é", "é", "ab", "§", "~", "ß")
    tokens = [(text, encode_control(text)[0]) for text in offered]
    codes = choose_codes(labels, "</s>=", encode_control, lambda: tokens)
    few = choose_codes(labels[:62], "</s>=", encode_control, forbidden)
    assert [codes[label] for label in labels[:62]] == list(few.values())
    assert [codes[label].text for label in labels[62:]] == ["é", "§", "~"]
    assert check_codes(labels, codes, "</s>=", encode_control) is None


def forbidden() -> list[tuple[str, int]]:
    raise AssertionError("a vocabulary was gone through for a few labels")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"c": None}, "codes for"),
        ({"d": Code("D", 10 + ord("D"))}, "codes for"),
        ({"b": Code("A", 10 + ord("A"))}, "two labels share a code token"),
        ({"b": Code("B", 7)}, r"label 'b' has the code 'B' as token 7, .* reads it as \[76\]"),
        ({"b": Code("BB", 10 + ord("B"))}, r"reads it as \[76, 76\]"),
    ],
)
def test_codes_that_do_not_fit_the_tokenizer_are_reported(
    change: dict[str, Code | None], problem: str
) -> None:
    changed = {**choose(), **change}
    codes = {name: code for name, code in changed.items() if code is not None}
    found = check_codes(CODE_LABELS, codes, "</s>=", encode_control)
    assert found is not None
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(found)


CODES = {"a": Code("A", 1), "b": Code("B", 2), "c": Code("C", 3)}
LABELS = tuple(CODES)


def logs(*probabilities: float) -> dict[int, float]:
    return {
        number: math.log(p) if p else -math.inf for number, p in enumerate(probabilities, start=1)
    }


def test_the_label_with_the_most_probability_wins() -> None:
    decision = decide_from_codes(logs(0.1, 0.6, 0.1), CODES, 1.0)
    assert decision.label == "b"
    assert decision.confidence == pytest.approx(0.75)
    assert decision.scores == pytest.approx({"a": 0.125, "b": 0.75, "c": 0.125})
    assert decision.off_label_mass == pytest.approx(0.2)


def test_a_temperature_softens_or_sharpens_and_keeps_the_order() -> None:
    soft, plain, sharp = (decide_from_codes(logs(0.2, 0.6, 0.1), CODES, t) for t in (4, 1, 0.2))
    assert soft.label == plain.label == sharp.label == "b"
    assert soft.confidence < plain.confidence < sharp.confidence
    assert soft.off_label_mass == plain.off_label_mass == sharp.off_label_mass


def test_ties_go_to_the_first_label() -> None:
    assert decide_from_codes(logs(0.25, 0.25, 0.25), CODES, 1.0).label == "a"
    assert decide_from_codes(logs(0.0, 0.3, 0.3), CODES, 0.1).label == "b"


def test_rounding_over_one_is_taken_as_one() -> None:
    """Half-precision probabilities add up to slightly more than 1."""
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
    with pytest.raises(InvalidScores, match=problem):
        decide_from_codes(given_logs, CODES, 1.0)


@given(
    st.lists(st.floats(-200, 0.02), min_size=3, max_size=3),
    st.floats(0.01, 100),
)
def test_any_log_probabilities_give_a_distribution_or_a_refusal(
    values: list[float], temperature: float
) -> None:
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
    """An engine cannot crash the worker with its answers."""
    try:
        decision = decide_from_codes(given_logs, CODES, temperature)
    except InvalidScores:
        return
    assert decision.label in LABELS
    assert math.isfinite(decision.confidence)


def test_words_are_checked_against_the_labels() -> None:
    decision = decide_from_choice(" b\n", math.log(0.7), LABELS)
    assert decision.label == "b"
    assert decision.confidence == pytest.approx(0.7)
    assert decision.scores == {"b": decision.confidence}
    assert decision.off_label_mass is None
    for text in ("", "B", "bb", "a b", "a\nb"):
        with pytest.raises(InvalidScores, match="words that are not a label"):
            decide_from_choice(text, -0.1, LABELS)


def test_a_refusal_of_words_does_not_repeat_them() -> None:
    """A model that repeats the message must not bring it into the logs."""
    with pytest.raises(InvalidScores) as caught:
        decide_from_choice("my card is 4111", -0.1, LABELS)
    assert "4111" not in str(caught.value)


@given(st.floats())
def test_the_confidence_of_words_is_a_probability_or_a_refusal(logprob: float) -> None:
    try:
        decision = decide_from_choice("a", logprob, LABELS)
    except InvalidScores:
        assume(True)
        assert math.isnan(logprob) or logprob > 0
        return
    assert 0 <= decision.confidence <= 1


def test_finer_outputs_are_summed_to_their_label() -> None:
    logits = [math.log(p) for p in (0.3, 0.3, 0.35, 0.05)]
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, 1.0)
    assert decision.label == "billing"
    assert decision.scores == pytest.approx({"billing": 0.6, "delivery": 0.35, "other": 0.05})
    assert list(decision.scores) == list(TOY_LABELS)
    assert decision.confidence == decision.scores["billing"]
    assert decision.off_label_mass is None


def test_the_temperature_is_of_the_outputs_before_they_are_summed() -> None:
    logits = [2.0, 0.0, 1.0, -1.0]
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, 2.0)
    weights = [math.exp(logit / 2) for logit in logits]
    assert decision.confidence == pytest.approx((weights[0] + weights[1]) / sum(weights))
    assert decision.out_of_scope == pytest.approx(-math.log(sum(map(math.exp, logits))))


def test_out_of_scope_scores_rise_for_what_fits_no_output() -> None:
    for method in ("energy", "max-logit"):
        head = toy_head(out_of_scope=method)
        known = decide_from_logits([9.0, 1.0, 1.0, 1.0], head, TOY_LABELS, 1.0)
        strange = decide_from_logits([4.0, -4.0, -4.0, -4.0], head, TOY_LABELS, 1.0)
        assert known.confidence == pytest.approx(strange.confidence, abs=1e-3)
        assert known.out_of_scope is not None
        assert strange.out_of_scope is not None
        assert strange.out_of_scope > known.out_of_scope
    assert decide_from_logits([3.0, 1.0, 0.0, -2.0], head, TOY_LABELS, 1.0).out_of_scope == -3.0


@given(st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=4), st.floats(0.01, 100))
def test_any_finite_logits_make_a_decision(logits: list[float], temperature: float) -> None:
    decision = decide_from_logits(logits, toy_head(), TOY_LABELS, temperature)
    assert sum(decision.scores.values()) == pytest.approx(1.0)
    assert 0 <= min(decision.scores.values()) <= max(decision.scores.values()) <= 1
    assert decision.confidence == max(decision.scores.values())


@pytest.mark.parametrize(
    "logits", [[], [1.0] * 3, [1.0] * 5, [1.0, math.nan, 0.0, 0.0], [math.inf, 0.0, 0.0, 0.0]]
)
def test_logits_that_are_no_answer_are_refused(logits: list[float]) -> None:
    with pytest.raises(InvalidScores):
        decide_from_logits(logits, toy_head(), TOY_LABELS, 1.0)


# The review rule: one for serving, for evaluation and for the probes.


def decision(confidence: float, mass: float | None, score: float | None = None) -> Decision:
    return Decision("billing", confidence, {"billing": confidence}, mass, score)


@pytest.mark.parametrize(
    ("confidence", "mass", "thresholds", "reasons"),
    [
        (0.0, 1.0, Thresholds(None, None), ()),
        (0.6, 0.5, Thresholds(0.6, 0.5), ()),
        (0.599, 0.5, Thresholds(0.6, 0.5), ("low_confidence",)),
        (0.6, 0.501, Thresholds(0.6, 0.5), ("off_label_mass",)),
        (0.1, 0.9, Thresholds(0.6, 0.5), ("low_confidence", "off_label_mass")),
        (0.9, None, Thresholds(0.6, 0.0), ()),
        (0.0, 0.0, Thresholds(0.0, 0.0), ()),
    ],
)
def test_each_threshold_gives_its_own_reason(
    confidence: float, mass: float | None, thresholds: Thresholds, reasons: tuple[str, ...]
) -> None:
    assert review_reasons(decision(confidence, mass), thresholds) == reasons


@pytest.mark.parametrize(
    ("confidence", "score", "thresholds", "reasons"),
    [
        (0.9, -4.0, Thresholds(0.6, None, -4.0), ()),
        (0.9, -3.9, Thresholds(0.6, None, -4.0), ("out_of_scope",)),
        (0.5, 7.0, Thresholds(0.6, None, -4.0), ("low_confidence", "out_of_scope")),
        (0.9, None, Thresholds(0.6, None, -4.0), ()),
    ],
)
def test_an_out_of_scope_score_has_a_threshold_of_its_own(
    confidence: float, score: float, thresholds: Thresholds, reasons: tuple[str, ...]
) -> None:
    assert review_reasons(decision(confidence, None, score), thresholds) == reasons


@pytest.mark.parametrize(
    ("earlier", "heard", "reasons"),
    [
        ((), 0.0, ()),
        ((("delivery", 0.3),), None, ()),
        ((("delivery", 0.3),), 0.0, ("disagreement",)),
        ((("delivery", 0.3),), 0.4, ()),
        ((("delivery", 0.4),), 0.4, ("disagreement",)),
        ((("billing", 0.9), ("delivery", 0.4)), 0.4, ("disagreement",)),
    ],
)
def test_an_earlier_stage_in_another_label_is_a_reason_of_its_own(
    earlier: tuple[tuple[str, float], ...], heard: float | None, reasons: tuple[str, ...]
) -> None:
    thought = tuple(Decision(label, sure, {label: sure}, None) for label, sure in earlier)
    found = Decision("billing", 0.9, {"billing": 0.9}, None, None, thought)
    assert review_reasons(found, Thresholds(0.6, review_disagreement=heard)) == reasons
