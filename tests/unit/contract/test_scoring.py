"""From raw log-probabilities to one label, or a refusal."""

import math
import string
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_adapter import LABELS as TOY_LABELS
from tests.support.toy_adapter import encode_control, toy_head
from worker.contract import (
    Branch,
    Code,
    CodeWalk,
    ContractError,
    Decision,
    InvalidScores,
    Thresholds,
    choose_codes,
    decide_from_codes,
    decide_from_logits,
    find_branches,
    review_reasons,
    word_codes,
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
        ({"b": Code("A", 10 + ord("A"))}, "the code of label 'a' is also the beginning of 'b'"),
        ({"b": Code("B", 7)}, r"label 'b' has the code 'B' as tokens \[7\], .* reads it as \[76\]"),
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


LABELS = ("a", "b", "c")


def logs(*probabilities: float) -> dict[str, float]:
    return {
        label: math.log(p) if p else -math.inf
        for label, p in zip(LABELS, probabilities, strict=True)
    }


def test_the_label_with_the_most_probability_wins() -> None:
    decision = decide_from_codes(logs(0.1, 0.6, 0.1), LABELS, 1.0)
    assert decision.label == "b"
    assert decision.confidence == pytest.approx(0.75)
    assert decision.scores == pytest.approx({"a": 0.125, "b": 0.75, "c": 0.125})
    assert decision.off_label_mass == pytest.approx(0.2)


def test_a_temperature_softens_or_sharpens_and_keeps_the_order() -> None:
    soft, plain, sharp = (decide_from_codes(logs(0.2, 0.6, 0.1), LABELS, t) for t in (4, 1, 0.2))
    assert soft.label == plain.label == sharp.label == "b"
    assert soft.confidence < plain.confidence < sharp.confidence
    assert soft.off_label_mass == plain.off_label_mass == sharp.off_label_mass


def test_ties_go_to_the_first_label() -> None:
    assert decide_from_codes(logs(0.25, 0.25, 0.25), LABELS, 1.0).label == "a"
    assert decide_from_codes(logs(0.0, 0.3, 0.3), LABELS, 0.1).label == "b"


def test_rounding_over_one_is_taken_as_one() -> None:
    """Half-precision probabilities add up to slightly more than 1."""
    assert decide_from_codes(logs(0.5, 0.505, 0.005), LABELS, 1.0).off_label_mass == 0.0


@pytest.mark.parametrize(
    ("given_logs", "problem"),
    [
        ({"a": -1.0, "b": -2.0}, "no score for the code of label 'c'"),
        ({"a": -1.0, "b": math.nan, "c": -1.0}, "score for label 'b' is nan"),
        ({"a": -1.0, "b": -2.0, "c": 0.5}, "score for label 'c' is 0.5"),
        ({"a": -1.0, "b": -2.0, "c": math.inf}, "score for label 'c' is inf"),
        (dict.fromkeys(LABELS, -math.inf), "every label a probability of zero"),
        ({"a": -0.1, "b": -0.1, "c": -5.0}, "add up to 1.8"),
        ({}, "no score"),
    ],
)
def test_numbers_that_are_no_log_probabilities_are_refused(
    given_logs: dict[str, float], problem: str
) -> None:
    with pytest.raises(InvalidScores, match=problem):
        decide_from_codes(given_logs, LABELS, 1.0)


@given(
    st.lists(st.floats(-200, 0.02), min_size=3, max_size=3),
    st.floats(0.01, 100),
)
def test_any_log_probabilities_give_a_distribution_or_a_refusal(
    values: list[float], temperature: float
) -> None:
    given_logs = dict(zip(LABELS, values, strict=True))
    if sum(math.exp(value) for value in values) > 1.02:
        with pytest.raises(InvalidScores):
            decide_from_codes(given_logs, LABELS, temperature)
        return
    decision = decide_from_codes(given_logs, LABELS, temperature)
    assert sum(decision.scores.values()) == pytest.approx(1.0)
    assert decision.confidence == max(decision.scores.values()) == decision.scores[decision.label]
    assert all(0 <= score <= 1 for score in decision.scores.values())
    assert 0 <= (decision.off_label_mass or 0.0) <= 1


@given(st.dictionaries(st.sampled_from((*LABELS, "d")), st.floats()), st.floats(0.001, 1000))
def test_no_numbers_whatever_raise_anything_else(
    given_logs: dict[str, float], temperature: float
) -> None:
    """An engine cannot crash the worker with its answers."""
    try:
        decision = decide_from_codes(given_logs, LABELS, temperature)
    except InvalidScores:
        return
    assert decision.label in LABELS
    assert math.isfinite(decision.confidence)


# Codes of several tokens


TREE = {
    "card lost": Code("card lost", 1, (2, 0)),
    "card stolen": Code("card stolen", 1, (3, 0)),
    "card": Code("card", 1, (0,)),
    "fee": Code("fee", 4, (5, 0)),
    "feedback": Code("feedback", 4, (6, 0)),
}


def walk_through(
    codes: dict[str, Code], model: Callable[[tuple[int, ...]], dict[int, float]]
) -> tuple[dict[str, float], list[tuple[int, ...]]]:
    """The codes' scores by a model of the next token, and the paths that it was asked for."""
    walk = CodeWalk(codes, find_branches(codes.values()))
    asked = []
    while (branch := walk.next()) is not None:
        asked.append(branch.path)
        walk.add(branch, {token: math.log(p) for token, p in model(branch.path).items()})
    return walk.scores(), asked


def test_codes_are_asked_only_where_they_part() -> None:
    assert find_branches(TREE.values()) == (
        Branch((), (1, 4)),
        Branch((1,), (2, 3, 0)),
        Branch((4,), (5, 6)),
    )
    assert find_branches([Code("A", 1), Code("B", 2)]) == (Branch((), (1, 2)),)
    assert find_branches([Code("x A", 7, (1,)), Code("x B", 7, (2,))]) == (Branch((7,), (1, 2)),)
    assert find_branches([Code("A", 1, (2,))]) == (Branch((), (1,)),)
    assert find_branches([]) == ()


def test_a_code_has_the_product_of_its_branches() -> None:
    steps = {(): {1: 0.5, 4: 0.4}, (1,): {2: 0.6, 3: 0.2, 0: 0.1}, (4,): {5: 0.5, 6: 0.25}}
    found, asked = walk_through(TREE, steps.__getitem__)
    assert {label: math.exp(score) for label, score in found.items()} == pytest.approx(
        {"card lost": 0.3, "card stolen": 0.1, "card": 0.05, "fee": 0.2, "feedback": 0.1}
    )
    assert asked == [(), (1,), (4,)]


def test_a_branch_that_cannot_matter_is_not_asked() -> None:
    """Its codes share its probability, so that the rest of the sum is that of no label."""
    steps = {(): {1: 0.9, 4: 0.0004}, (1,): {2: 0.8, 3: 0.1, 0: 0.1}}
    found, asked = walk_through(TREE, steps.__getitem__)
    assert asked == [(), (1,)]
    assert math.exp(found["fee"]) == math.exp(found["feedback"]) == pytest.approx(0.0002)
    assert decide_from_codes(found, tuple(TREE), 1.0).off_label_mass == pytest.approx(0.0996)


def test_a_branch_is_asked_once_the_better_one_disappoints() -> None:
    steps = {(): {1: 0.999, 4: 0.0005}, (1,): {2: 1e-5, 3: 1e-5, 0: 1e-5}, (4,): {5: 0.9, 6: 0.1}}
    found, asked = walk_through(TREE, steps.__getitem__)
    assert asked == [(), (1,), (4,)]
    assert decide_from_codes(found, tuple(TREE), 1.0).label == "fee"


@given(st.data())
def test_a_walk_finds_the_best_code_of_any_model(data: st.DataObject) -> None:
    texts = data.draw(st.sets(st.lists(st.integers(1, 3), max_size=4).map(tuple), min_size=2))
    codes = {str(text): Code("", *_first((*text, 0))) for text in texts}
    probability = st.floats(0.001, 1)

    @cache
    def model(_path: tuple[int, ...]) -> dict[int, float]:
        drawn = [data.draw(probability) for _ in range(5)]
        return dict(enumerate(value / sum(drawn) for value in drawn[:4]))

    found, _ = walk_through(codes, model)
    whole = {}
    for label, code in codes.items():
        parting = [each for each in find_branches(codes.values()) if _begins(code.ids, each.path)]
        whole[label] = math.prod(model(each.path)[code.ids[len(each.path)]] for each in parting)
    assert whole[max(found, key=found.__getitem__)] >= 0.999 * max(whole.values())
    assert sum(map(math.exp, found.values())) <= 1 + 1e-9


def _first(ids: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return ids[0], ids[1:]


def _begins(ids: tuple[int, ...], path: tuple[int, ...]) -> bool:
    return ids[: len(path)] == path


def test_a_score_that_an_engine_leaves_out_is_refused() -> None:
    with pytest.raises(InvalidScores, match="no score for token 4"):
        walk_through(TREE, lambda _: {1: 0.5})


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"a": "x", "b": "xy"}, "'a' is also the beginning of 'b'"),
        ({"a": "x", "b": ""}, "answer of label 'b' has no token"),
        ({"a": "x", "b": "x"}, "beginning of"),
    ],
)
def test_words_that_cannot_be_told_apart_are_refused(words: dict[str, str], problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        word_codes(words, "</s>=", encode_control)


def test_words_are_codes_of_their_tokens() -> None:
    codes = word_codes({"a": "xy</s>", "b": "xz</s>"}, "</s>=", encode_control)
    assert [code.ids for code in codes.values()] == [
        tuple(encode_control("xy</s>")), tuple(encode_control("xz</s>"))
    ]  # fmt: skip
    assert check_codes(("a", "b"), codes, "</s>=", encode_control) is None


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
