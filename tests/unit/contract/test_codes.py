"""Label codes: one token each, or told in the open."""

import string

import pytest

from tests.support.toy_adapter import encode_control, toy_manifest
from worker.contract import Code, ContractError, choose_codes
from worker.contract.codes import check_codes

LABELS = ("a", "b", "c")


def choose(encode: object = encode_control, labels: tuple[str, ...] = LABELS) -> dict[str, Code]:
    return choose_codes(labels, "</s>=", encode)  # type: ignore[arg-type]


def test_each_label_gets_a_token_of_its_own() -> None:
    """The codes are letters, in the labels' order."""
    codes = choose()
    assert [(name, code.text) for name, code in codes.items()] == [
        ("a", "A"),
        ("b", "B"),
        ("c", "C"),
    ]
    assert check_codes(LABELS, codes, "</s>=", encode_control) is None


def test_characters_that_are_not_one_token_are_passed_over() -> None:
    """A tokenizer that splits a letter, or glues it to the suffix, offers another."""

    def encode(text: str) -> list[int]:
        return encode_control(text.replace("=A", "=\u1234").replace("B", "xy"))

    glued = choose(lambda text: encode_control(text.replace("=A", "\u1234")))
    assert [code.text for code in glued.values()] == ["B", "C", "D"]
    assert [code.text for code in choose(encode).values()] == ["A", "C", "D"]


def test_two_characters_of_one_token_are_not_two_codes() -> None:
    """A tokenizer that folds case, or knows few letters, must not give two labels one answer."""
    folding = lambda text: encode_control(text.lower())  # noqa: E731
    many = tuple(string.ascii_lowercase) + tuple(string.digits)
    codes = choose_codes(many, "</s>=", folding)
    assert len({code.token_id for code in codes.values()}) == len(many) == 36
    with pytest.raises(ContractError, match="offers 36 one-token codes and there are 37 labels"):
        choose_codes((*many, "one more"), "</s>=", folding)


def test_too_few_codes_are_told_with_the_way_out() -> None:
    """The trainer's user reads what to do instead: something that there is."""
    labels = tuple(f"l{number}" for number in range(63))
    with pytest.raises(ContractError, match=r"62 one-token codes .* 63 .*: merge labels, or .*"):
        choose_codes(labels, "</s>=", encode_control)


def test_more_labels_than_letters_get_other_single_tokens() -> None:
    """The first 62 keep what they always had; the rest take the tokens that are offered, in that
    order, but what cannot be seen, what is no token there, and what another label has already."""
    labels = tuple(f"l{number}" for number in range(65))
    offered = ("A", " ", "\n", "\x00", "\ufffd", "é", "é", "ab", "§", "~", "ß")
    tokens = [(text, encode_control(text)[0]) for text in offered]
    codes = choose_codes(labels, "</s>=", encode_control, lambda: tokens)
    few = choose_codes(labels[:62], "</s>=", encode_control, forbidden)
    assert [codes[label] for label in labels[:62]] == list(few.values())
    assert [codes[label].text for label in labels[62:]] == ["é", "§", "~"]
    assert check_codes(labels, codes, "</s>=", encode_control) is None


def test_a_token_that_reads_as_another_one_is_no_code() -> None:
    """Its text would come back as a token that decodes to something else."""
    tokens = [("é", 7), ("§", encode_control("§")[0])]
    labels = tuple(f"l{number}" for number in range(63))
    codes = choose_codes(labels, "</s>=", encode_control, lambda: tokens)
    assert codes["l62"].text == "§"


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
def test_codes_that_do_not_fit_the_tokenizer_are_told(
    change: dict[str, Code | None], problem: str
) -> None:
    """Which label, which code, and what the tokenizer makes of it."""
    changed = {**choose(), **change}
    codes = {name: code for name, code in changed.items() if code is not None}
    found = check_codes(LABELS, codes, "</s>=", encode_control)
    assert found is not None
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(found)


def test_a_manifest_needs_a_code_for_every_label() -> None:
    """No label is left that the engine could not answer with."""
    with pytest.raises(ValueError, match="a code for every label"):
        toy_manifest(codes=choose())
