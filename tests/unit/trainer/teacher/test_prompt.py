"""What leaves, what counts as an answer, and what answers say together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.teacher.ledger import Answer
from trainer.teacher.prompt import (
    DISAGREES,
    INVENTED,
    LABELLED,
    MESSAGE_CHARS,
    NO_LABEL_FITS,
    REFUSED,
    decide,
    make_prompt,
    make_question,
    most_answer_tokens,
    prompt_digest,
    read_answer,
)
from worker.contract.taxonomy import Label, Taxonomy

TAXONOMY = Taxonomy(
    "shop", "1", "A shop.", (Label("refund", "money back"), Label("payment"), Label("größe"))
)
NAMES = TAXONOMY.names


@pytest.mark.parametrize(
    ("content", "outcome", "label"),
    [
        ('{"label": "refund"}', "label", "refund"),
        (' {"label":"payment"}\n', "label", "payment"),
        ("refund", "label", "refund"),
        ('{"label": "gro\\u0308\\u00dfe"}', "label", "größe"),
        ('{"label": "none"}', "none", None),
        ("none", "none", None),
        ('{"label": "Refund"}', "invented", None),
        ('{"label": "refunds"}', "invented", None),
        ('{"label": "refund"}{"label": "refund"}', "invented", None),
        ('{"label": "refund", "label": "payment"}', "invented", None),
        ('{"label": "refund", "because": "x"}', "invented", None),
        ('[["label", "refund"]]', "invented", None),
        ('{"label": ["refund"]}', "invented", None),
        ('"refund"', "invented", None),
        ("The label is refund.", "invented", None),
        ("[" * 100_000, "invented", None),
        ("", "invented", None),
        (None, "invented", None),
    ],
)
def test_an_answer_is_one_label_or_invented(
    content: str | None, outcome: str, label: str | None
) -> None:
    assert read_answer(content, NAMES) == Answer(outcome, label)


A, B, C = (Answer("label", name) for name in NAMES)
NONE, INVENTS, REFUSES = Answer("none"), Answer("invented"), Answer("refused")


@pytest.mark.parametrize(
    ("answers", "votes", "outcome", "label", "counts"),
    [
        ([A], 1, LABELLED, "refund", (1, 1)),
        ([A, A], 3, LABELLED, "refund", (2, 2)),
        ([A, B, A], 3, LABELLED, "refund", (2, 3)),
        ([A, INVENTS, A], 3, LABELLED, "refund", (2, 2)),
        ([A, B, C], 3, DISAGREES, "refund", (1, 3)),
        ([A, NONE, C], 3, DISAGREES, "refund", (1, 3)),
        ([A, B], 2, DISAGREES, "refund", (1, 2)),
        ([A, B, A, B, C], 5, DISAGREES, "refund", (2, 5)),
        ([A, B, C, A], 5, None, None, None),
        ([A, B, C, NONE], 5, DISAGREES, "refund", (1, 4)),
        ([NONE, NONE], 3, NO_LABEL_FITS, None, (0, 2)),
        ([INVENTS, INVENTS], 3, INVENTED, None, (0, 0)),
        ([A, INVENTS, REFUSES], 3, REFUSED, "refund", (1, 1)),
        ([INVENTS, A, INVENTS], 3, None, None, None),
        ([A], 3, None, None, None),
        ([INVENTS], 1, None, None, None),
        ([], 1, None, None, None),
    ],
)
def test_votes_decide_as_soon_as_no_other_can_change_it(
    answers: list[Answer],
    votes: int,
    outcome: str | None,
    label: str | None,
    counts: tuple[int, int] | None,
) -> None:
    found = decide(answers, votes)
    if outcome is None:
        assert found is None
    else:
        assert found is not None
        assert (found.outcome, found.label, (found.votes, found.asked)) == (outcome, label, counts)


@given(st.lists(st.sampled_from([A, B, C, NONE, INVENTS, REFUSES])), st.integers(1, 9))
def test_asking_always_ends(answers: list[Answer], votes: int) -> None:
    """After at most two answers for each vote."""
    asked: list[Answer] = []
    for answer in [*answers, *[A, B, C, NONE] * 5]:
        if decide(asked, votes) is not None:
            break
        asked.append(answer)
    assert decide(asked, votes) is not None
    assert len(asked) <= 2 * votes


def test_personal_data_does_not_leave() -> None:
    text = "call me: 0171 2345678, ann@example.com, IBAN DE89 3704 0044 0532 0130 00"
    question = make_question(text, redacts=True)
    assert question is not None
    assert question.text == "call me: [phone], [mail], IBAN [iban]"
    whole = make_question(text, redacts=False)
    assert whole is not None
    assert "ann@example.com" in whole.text


def test_a_long_message_is_shortened_after_it_is_masked() -> None:
    """A number that the cut divides is masked in full."""
    text = "a " * (MESSAGE_CHARS // 4 - 8) + "write to ann.miller@example.com " + "b " * 9_000
    question = make_question(text, redacts=True)
    assert question is not None
    assert len(question.text) <= MESSAGE_CHARS
    assert "ann" not in question.text


@pytest.mark.parametrize("text", ["", "  \n", "\u200b"])
def test_a_blank_message_is_not_asked_about(text: str) -> None:
    assert make_question(text, redacts=True) is None


@given(st.text(min_size=1, max_size=300))
def test_no_tokenizer_of_bytes_exceeds_the_bound(text: str) -> None:
    """Every token of a byte-level vocabulary is one byte or more of what is sent."""
    question = make_question(text, redacts=False)
    if question is not None:
        prompt = make_prompt(TAXONOMY, question, 0)
        assert prompt.most_tokens > len(f"{prompt.system}{prompt.user}".encode())
        assert json.loads(prompt.user) == {"message": question.text}


def test_each_vote_has_the_labels_in_another_order() -> None:
    question = make_question("where is my money", redacts=True)
    assert question is not None
    orders = [make_prompt(TAXONOMY, question, vote).choices[:-1] for vote in range(3)]
    assert len(set(orders)) == 3
    assert {frozenset(order) for order in orders} == {frozenset(NAMES)}


def test_the_longest_label_fits_the_answer() -> None:
    assert most_answer_tokens(TAXONOMY) > len('{"label": "payment"}')


def test_another_description_is_another_prompt() -> None:
    other = Taxonomy("shop", "1", "A shop.", (Label("refund", "money"), *TAXONOMY.labels[1:]))
    assert prompt_digest(TAXONOMY, 3) != prompt_digest(other, 3)
