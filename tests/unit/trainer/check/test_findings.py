"""What each check says, and about what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.check.duplicates import (
    check_conflicts,
    check_leakage,
    find_conflicts,
    fingerprint,
    holdout_fingerprints,
)
from trainer.check.finding import Finding, worst
from trainer.check.labels import check_balance, check_counts, check_holdout_size, check_names
from trainer.dataset.folder import Dataset, Example, count_openings
from trainer.dataset.near_duplicates import jaccard, near_pairs, shingles
from worker.contract import Label, Taxonomy

pytestmark = pytest.mark.slow


def test_few_examples_warn_and_very_few_fail(taxonomy: Taxonomy) -> None:
    """A label with 19 examples cannot be learnt; one below the floor is named."""
    examples = make_examples(30, 1)
    assert check_counts(examples, taxonomy, 25).verdict == "ok"
    finding = check_counts(examples, taxonomy, 31)
    assert finding.verdict == "warn"
    assert finding.figures["below_floor"] == sorted(THINGS)
    refunds = [example for example in examples if example.label == "refund"]
    fewer = [example for example in examples if example.label != "refund"]
    finding = check_counts([*fewer, *refunds[:19]], taxonomy, 25)
    assert finding.verdict == "fail"
    assert finding.figures["below_20"] == ["refund"]
    assert "refund" in finding.advice
    assert check_counts(fewer, taxonomy, 25).figures["per_label"]["refund"] == 0


def test_a_label_that_drowns_the_others_is_told(taxonomy: Taxonomy) -> None:
    """Ten times as many is too much of one."""
    even = make_examples(10, 1)
    assert check_balance(even, taxonomy).verdict == "ok"
    assert check_balance(even, taxonomy).figures["entropy"] == 1.0
    more = [replace(even[0], id=f"x{at}") for at in range(95)]
    assert check_balance([*even, *more], taxonomy).verdict == "warn"


def test_a_small_holdout_is_told_with_the_uncertainty_it_leaves() -> None:
    """The owner reads how exactly an accuracy would be known: 1.96 * sqrt(0.9 * 0.1 / 900)."""
    finding = check_holdout_size({"a": 450, "b": 450})
    assert finding.verdict == "ok"
    assert finding.figures["margin_at_90"] == 0.0196
    assert check_holdout_size({"a": 871, "b": 29}).verdict == "warn"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("refund_issue", "issue refunds"),
        ("cardPayment", "card-payment"),
        ("order_tracking", "orders_tracking"),
        ("payment_declined", "payment_decline"),
    ],
)
def test_names_that_people_mix_up_are_told(left: str, right: str) -> None:
    """Order of words, plural, case and a letter more are no difference to rely on."""
    taxonomy = Taxonomy("t", "1", "", (Label(left, "x"), Label(right, "y"), Label("misc", "z")))
    finding = check_names(taxonomy)
    assert finding.verdict == "warn"
    assert [pair[:2] for pair in finding.figures["alike"]] == [[left, right]]


def test_names_of_a_real_desk_are_not_alike(taxonomy: Taxonomy) -> None:
    """A common first word alone does not make two names alike; a missing description is told."""
    names = (
        "billing_refund",
        "billing_fee_charged",
        "card_virtual_wallet",
        "card_lost_blocked_pin",
    )
    good = Taxonomy("t", "1", "", tuple(Label(name, f"about {name}") for name in names))
    assert check_names(good).verdict == "ok"
    silent = Taxonomy("t", "1", "", (Label("refund", "x"), Label("login", "")))
    assert check_names(silent).figures["without_description"] == ["login"]


def test_near_pairs_are_exactly_those_of_a_full_comparison() -> None:
    """The short cut loses no pair and invents none."""
    words = [example.message for example in make_examples(40, 5)]
    texts = [*words, *(f"{text} x" for text in words[:20]), *words[:5], "", "a"]
    sets = [fingerprint(text).shingles for text in texts]
    for similarity in (0.07, 0.4, 0.7, 0.9, 1.0):
        wanted = {
            (first, second)
            for first, left in enumerate(texts)
            for second, right in enumerate(texts)
            if jaccard(shingles(left), shingles(right)) >= similarity
        }
        assert {pair[:2] for pair in near_pairs(sets, sets, similarity)} == wanted
    assert len(wanted) > len(texts)
    some = list(near_pairs(sets, sets, 0.4, most=2))
    assert max(sum(first == at for first, _, _ in some) for at in range(len(texts))) == 2


def test_copies_under_two_labels_fail_and_near_copies_are_listed() -> None:
    """Both ids and both labels are told; the same label twice is no conflict."""
    examples = [
        Example("a", "Where is my parcel?", "order_tracking"),
        Example("b", "where is  my PARCEL?", "refund"),
        Example("c", "Where is my parcel?", "order_tracking"),
        Example("d", "please tell me when I will get my money back", "refund"),
        Example("e", "please tell me when I will get my money back!!", "payment"),
    ]
    found = find_conflicts(examples, [fingerprint(example.key) for example in examples], 0.7)
    assert [(pair.first.id, pair.second.id, pair.exact) for pair in found] == [
        ("a", "b", True),
        ("b", "c", True),
        ("d", "e", False),
    ]
    finding = check_conflicts(found, len(examples))
    assert finding.verdict == "fail"
    assert (finding.figures["exact_messages"], finding.figures["near_messages"]) == (3, 2)
    assert check_conflicts((), 5).verdict == "ok"
    assert check_conflicts(found[:1], 1000).verdict == "warn"


def leak(make_dataset: Callable[..., Dataset], **splits: list[Example]) -> Finding:
    dataset = make_dataset(**splits)
    before = count_openings(dataset)
    prints = holdout_fingerprints(dataset)
    assert count_openings(dataset) == before
    opened = [
        (name, examples, [fingerprint(example.key) for example in examples])
        for name, examples in (("train", dataset.train), ("validation", dataset.validation))
    ]
    return check_leakage(opened, prints, 0.7)


@pytest.mark.parametrize(
    ("reword", "kind"),
    [
        pytest.param(lambda text: f" {text.upper()}", "exact", id="other letters and blanks"),
        # One in 36 is above one in a hundred.
        pytest.param(lambda text: f"{text} so", "near", id="a rewording"),
    ],
)
def test_a_holdout_message_in_training_fails_without_opening_the_holdout(
    make_dataset: Callable[..., Dataset], reword: Callable[[str], str], kind: str
) -> None:
    """A copy is still a copy in another dress; no opening is counted for looking."""
    assert leak(make_dataset).verdict == "ok"
    holdout = make_examples(12, 3, 2000)
    copy = replace(holdout[0], id="leak", message=reword(holdout[0].message))
    finding = leak(make_dataset, train=[*make_examples(40, 1), copy], holdout=holdout)
    assert finding.verdict == "fail"
    expected = {"exact": 0, "near": 0, "ids": ["leak"]} | {kind: 1}
    assert finding.figures["train_holdout"] == expected


def test_copies_between_training_and_validation_warn(make_dataset: Callable[..., Dataset]) -> None:
    """They make early stopping too sure of itself, and spoil no figure."""
    train = make_examples(40, 1)
    finding = leak(make_dataset, train=train, validation=[replace(train[3], id="v")])
    assert finding.verdict == "warn"
    assert finding.figures["train_validation"]["exact"] == 1


def test_fingerprints_tell_no_text(make_dataset: Callable[..., Dataset]) -> None:
    """What leaves the sealed file are digests."""
    dataset = make_dataset()
    words = {word for words in THINGS.values() for word in words}
    for found in holdout_fingerprints(dataset):
        assert len(found.key) == 64
        assert all(len(shingle) == 8 for shingle in found.shingles)
        assert not any(word in repr(found) for word in words)


def test_the_worst_verdict_is_the_dataset_s() -> None:
    """A check that was left out does not make a dataset bad, nor a bad one good."""
    skipped, warn = Finding("a", "skipped", ""), Finding("b", "warn", "")
    assert worst([skipped]) == "ok"
    assert worst([warn, skipped]) == "warn"
    assert worst([warn, Finding("c", "fail", "")]) == "fail"
