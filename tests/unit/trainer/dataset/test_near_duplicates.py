"""Near-duplicates, compared with a search over all pairs, and the proofs based on them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Prepare, Record
from tests.unit.trainer.dataset.mails import QUOTED, SIGNED
from trainer.dataset import near_duplicates
from trainer.dataset.clean import Cleaner, canonical
from trainer.dataset.folder import Dataset, Example, write_dataset
from trainer.dataset.near_duplicates import (
    group_near,
    is_one_form,
    jaccard,
    mask,
    near_clusters,
    near_pairs,
    shingles,
    verify_disjoint,
)
from trainer.errors import BadInput
from worker.contract.redact import REDACTION, redact_personal_data

pytestmark = pytest.mark.slow


def search(keys: list[str], similarity: float) -> set[frozenset[str]]:
    groups = near_clusters(keys, similarity=similarity)
    return {frozenset(keys[place] for place in group) for group in groups}


def brute_force(keys: list[str], similarity: float) -> set[frozenset[str]]:
    sets, words = [shingles(key) for key in keys], [mask(key).split() for key in keys]
    cluster_of = {key: frozenset([key]) for key in keys}
    for left, right in combinations(range(len(keys)), 2):
        alike = jaccard(sets[left], sets[right])
        # Forms are looked for among pairs that are at least half alike.
        if alike >= similarity or (alike >= 0.5 and is_one_form(words[left], words[right])):
            together = cluster_of[keys[left]] | cluster_of[keys[right]]
            cluster_of |= dict.fromkeys(together, together)
    return set(cluster_of.values())


def some_texts(count: int, seed: int = 2, edits: int = 4) -> list[str]:
    """Return texts of every similarity to each other: random edits of a few of them."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(150)]
    stems = [rng.choices(words, k=rng.randint(4, 14)) for _ in range(count // 6)]
    texts: set[str] = set()
    while len(texts) < count:
        text = list(rng.choice(stems))
        for _ in range(rng.randint(0, edits)):
            text[rng.randrange(len(text))] = rng.choice(words)
        texts.add(" ".join(text))
    return sorted(texts)


@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.7, 0.8])
def test_the_clusters_are_those_of_comparing_every_pair(similarity: float) -> None:
    """300 texts of every similarity."""
    keys = some_texts(300)
    expected = brute_force(keys, similarity)
    assert search(keys, similarity) == expected
    assert {len(cluster) for cluster in expected} > {1, 2}


def test_letters_case_and_punctuation_do_not_tell_messages_apart_but_words_do() -> None:
    stolen = "what do i do if my {} stolen"
    keys = [stolen.format(what) for what in ("card is", "card was", "phone is")]
    assert near_clusters([*keys, "???", "!", ""], similarity=0.7)[:3] == [[0, 1], [2], [3]]


def test_a_pair_at_the_threshold_is_never_missed() -> None:
    sets = [shingles(key) for key in some_texts(60)]
    tried = 0
    for left, right in combinations(range(len(sets)), 2):
        similarity = jaccard(sets[left], sets[right])
        if similarity < 0.3:
            continue
        found = [(place, other) for place, other, _ in near_pairs(sets, sets, similarity)]
        assert {(left, right), (right, left)} <= set(found)
        tried += 1
    assert tried > 50


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_group_is_named_by_its_smallest_member(order: tuple[int, ...]) -> None:
    text = "where is the parcel that i have ordered from you last week"
    chain = [text, f"{text} please", f"{text} please tell me"]
    sets = [shingles(key) for key in chain]
    assert jaccard(sets[0], sets[2]) < 0.85 <= min(map(jaccard, sets[:2], sets[1:]))
    keys = [chain[order[0]], "my card", chain[order[1]], "no money", chain[order[2]]]
    assert near_clusters(keys, similarity=0.85) == [[0, 2, 4], [1], [3]]


def test_nothing_is_near_to_nothing() -> None:
    some = [shingles("my card was stolen")]
    assert near_clusters([], similarity=0.7) == []
    assert near_clusters([""], similarity=0.7) == [[0]]
    assert list(near_pairs([], [], 0.7)) == []
    assert list(near_pairs(some, [], 0.7)) == []
    assert list(near_pairs([], some, 0.7)) == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("order ab-1234 of 3.4.2026", "order ab-98 of 12/11/26"),
        ("dear [name], call [phone] or [card]", "dear [name] [name], call +49 170 50 or 41-11"),
        ("serial rf8812x9", "serial 1z999aa1"),
    ],
)
def test_messages_of_one_form_are_one_message(left: str, right: str) -> None:
    assert near_clusters([left, right], similarity=1.0) == [[0, 1]]


def test_masking_keeps_words_apart() -> None:
    assert mask("my card, again!") == " my card again "
    assert mask("no 12 34 x") == " no 0 x "
    assert mask("???") == " ??? "
    assert len(near_clusters(["my card is stolen", "my 17 is stolen"], similarity=0.7)) == 2


def test_templates_are_told_of_from_three_messages_on() -> None:
    keys = ["form 1 here", "i lost my card", "form 22 here", "i lost my card ok", "form x4 here"]
    found = group_near(len(keys), keys.__getitem__, similarity=0.7)
    assert found.templates == [[0, 2, 4]]
    assert group_near(4, keys.__getitem__, similarity=0.7).templates == []


def missed(keys: list[str], similarity: float) -> tuple[int, int]:
    """Return the number of near pairs, and how many of them the search separates."""
    cluster_of = {
        place: number
        for number, cluster in enumerate(near_clusters(keys, similarity=similarity))
        for place in cluster
    }
    sets = [shingles(key) for key in keys]
    near = [
        (left, right)
        for left, right in combinations(range(len(keys)), 2)
        if jaccard(sets[left], sets[right]) >= similarity
    ]
    return len(near), sum(cluster_of[left] != cluster_of[right] for left, right in near)


def test_of_a_million_texts_pairs_nine_in_ten_thousand_are_missed_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the longest bands, as for more than 512,000 texts, 999 of 1,000 near pairs are found."""
    monkeypatch.setattr(near_duplicates, "_LADDER", ())
    assert near_duplicates.hashes_in_a_band(10, 0.7) == 6
    counted = [missed(some_texts(500, seed, edits=1), 0.7) for seed in range(5, 10)]
    pairs, lost = (sum(some) for some in zip(*counted, strict=True))
    assert pairs > 2000
    assert lost <= pairs / 1000


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("texts", [100, 50_000, 400_000, 10**6])
def test_a_band_is_never_so_long_that_more_than_one_in_a_thousand_is_missed(
    similarity: float, texts: int
) -> None:
    """By the formula, for low thresholds too."""
    hashes = near_duplicates.hashes_in_a_band(texts, similarity)
    assert hashes == 1 or (1 - similarity**hashes) ** near_duplicates.BANDS <= 1e-3


def test_thousands_of_near_copies_of_a_long_message_are_one_cluster_in_linear_time() -> None:
    stem = " ".join(some_texts(60)[:12])
    names = some_texts(3000, seed=3)
    keys = [*sorted({f"{stem} {name[:9]}" for name in names}), "hello there my card is gone"]
    compared = 0

    def counted(left: frozenset[str], right: frozenset[str]) -> float:
        nonlocal compared
        compared += 1
        return jaccard(left, right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.dataset.near_duplicates.jaccard", counted)
        clusters = near_clusters(keys, similarity=0.7)
    assert [len(cluster) for cluster in clusters] == [len(keys) - 1, 1]
    assert compared < 2 * len(keys)


FOOTER = (
    "this message was sent by the contact form of the shop and the customer has accepted our terms "
    "of service and our privacy notice so that answers go to the address in the account and not to "
    "the one from which it was sent because nobody reads mails to that one"
)


def unlike(count: int, words: int, seed: int = 5) -> list[str]:
    """Return texts that share nothing."""
    draw = random.Random(seed)
    return [
        " ".join("".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(words))
        for _ in range(count)
    ]


def test_a_footer_of_many_messages_makes_none_of_them_near() -> None:
    """Nor does it hide that two are near, with the footer or without."""
    own = unlike(60, 6)
    keys = [f"{text} {FOOTER}" for text in own]
    assert jaccard(shingles(keys[0]), shingles(keys[1])) > 0.7
    copies = [f"well {own[0]}", f"well {own[1]} {FOOTER}"]
    found = group_near(62, [*keys, *copies].__getitem__, similarity=0.7)
    assert [cluster for cluster in found.clusters if len(cluster) > 1] == [[0, 60], [1, 61]]
    assert (found.footed_count, found.footed) == (61, (0, 1, 2))


def test_a_form_that_is_filled_in_is_one_message() -> None:
    """Its own words are a name and a product; all the rest is the same in many messages."""
    keys = [f"{FOOTER} {words}" for words in unlike(60, 2)]
    assert len(near_clusters(keys, similarity=0.7)) == 1


def test_forms_with_one_footer_are_not_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is a passage by itself, so that nothing is its own; the footer is in all of them. Pairs
    of different forms would make the search quadratic."""
    forms = unlike(30, 13)
    keys = [f"{form} {name} {FOOTER}" for form in forms for name in unlike(20, 2, seed=9)]
    compared = 0

    def counted(left: frozenset[str], right: frozenset[str]) -> float:
        nonlocal compared
        compared += 1
        return jaccard(left, right)

    monkeypatch.setattr("trainer.dataset.near_duplicates.jaccard", counted)
    clusters = near_clusters(keys, similarity=0.7)
    assert [len(cluster) for cluster in clusters] == [20] * 30
    assert compared < 2 * len(keys)


def test_a_template_with_other_names_and_products_is_one_message() -> None:
    """By their four-letter shingles alone they fell into several clusters."""
    names = ("Anna Schmidt", "Ben O Neil", "Carla Kowalski", "Dora Meier")
    products = ("kettle", "blue lamp", "toaster", "wool blanket", "desk", "coffee grinder", "clock")
    keys = [
        f"hello, my name is {name} and the {product} that I ordered does not work. please send me "
        "a label.".casefold()
        for name in names
        for product in products
    ]
    other = "hello, my name is anna schmidt and I would like to know when you open on sundays."
    found = near_clusters([*keys, other], similarity=0.7)
    assert [len(cluster) for cluster in found] == [28, 1]


def test_a_pair_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-equal texts share many bands, and were compared in each of them."""
    [stem] = unlike(1, 8, seed=1)
    keys = [f"{stem} {words}" for words in unlike(19, 3)]
    compared: Counter[frozenset[frozenset[str]]] = Counter()

    def counted(left: frozenset[str], right: frozenset[str]) -> float:
        compared[frozenset((left, right))] += 1
        return jaccard(left, right)

    monkeypatch.setattr("trainer.dataset.near_duplicates.jaccard", counted)
    near_clusters(keys, similarity=0.7)
    assert len(compared) > 20
    assert max(compared.values()) == 1


def tail(draw: random.Random) -> str:
    """Return a unique quotation and signature."""
    words = ["".join(draw.choices("bcdfghklmnprstvw", k=7)) for _ in range(40)]
    lines = [" ".join(words[at : at + 8]) for at in range(0, 32, 8)]
    quoted = "".join(f"\n> {line}" for line in lines)
    return f"\nOn 3 Jun 2024 at 10:12, {words[32]} wrote:{quoted}\n\nBest regards,\n{words[33]}"


def signed(records: list[Record], seed: int) -> list[Record]:
    draw = random.Random(seed)
    return [(id_, f"{message}{tail(draw)}", label) for id_, message, label in records]


def pair(
    tmp_path: Path, sealed: Dataset, held: list[Example], redaction: str | None = None
) -> tuple[Dataset, Dataset]:
    """Return the sealed dataset and another one that holds ``held`` out."""
    other = write_dataset(
        tmp_path / "other", name="o", taxonomy=sealed.taxonomy, redaction=redaction,
        splits={"train": sealed.train, "validation": sealed.validation, "holdout": held},
    )  # fmt: skip
    return sealed, other


@pytest.mark.parametrize(("mail", "own"), [*QUOTED, *SIGNED])
def test_the_canonical_form_does_not_depend_on_what_was_done(mail: str, own: str) -> None:
    cleaners = [
        Cleaner(quotes=quotes, signatures=signatures, redaction=redaction)
        for quotes in (True, False)
        for signatures in (True, False)
        for redaction in (REDACTION, None)
    ]
    forms = {canonical(cleaner.clean(mail).text) for cleaner in cleaners}
    assert forms == {canonical(own)} == {canonical(canonical(own))}


def test_a_message_that_is_all_signature_has_a_canonical_form() -> None:
    assert canonical("> Hello") != canonical("> Goodbye")
    assert canonical("Cheers") == "cheers"


def test_datasets_that_were_cleaned_otherwise_are_not_compared(
    prepare: Prepare, records: list[Record]
) -> None:
    rows = signed(records, 1)
    first = prepare(rows, "--strip-quotes", "--strip-signatures")
    second = prepare(rows, "--seed", 3)
    held = second.held()
    assert {each.id for each in held} & {each.id for each in first.train}
    with pytest.raises(BadInput, match="strip quotes, strip signatures") as refused:
        verify_disjoint(first.dataset, second.dataset, held)
    assert "prepare both with the same" in str(refused.value)


def test_cleaned_alike_the_same_export_is_found_out(
    prepare: Prepare, records: list[Record]
) -> None:
    own = prepare(signed(records, 1))
    renamed = [(f"x{id_}", message, label) for id_, message, label in signed(records, 2)]
    other = prepare(renamed, "--seed", 3)
    held = other.held()
    known = {each.id for each in (*own.train, *own.validation)}
    proof = verify_disjoint(own.dataset, other.dataset, held)
    assert proof.copies == sum(each.id.removeprefix("x") in known for each in held) > 10


def test_an_id_that_was_trained_on_is_found_out(tmp_path: Path, sealed: Dataset) -> None:
    reworded = replace(sealed.train[0], message="zq wholly other words kx")
    copy, new = sealed.train[1], Example("new", "vv nobody said such ww", sealed.train[0].label)
    own, other = pair(tmp_path, sealed, [reworded, copy, new])
    proof = verify_disjoint(own, other, [reworded, copy, new])
    assert (proof.copies, proof.near_copies, proof.same_ids) == (1, 0, 1)
    assert proof.shared == 2


def test_prepare_keeps_what_is_canonically_one_in_one_part(
    prepare: Prepare, records: list[Record]
) -> None:
    twice = [
        (f"{id_}-{seed}", message, label)
        for seed in (1, 2)
        for id_, message, label in signed(records, seed)
    ]
    made = prepare(twice)
    held = made.held()
    known = {each.id.split("-")[0] for each in (*made.train, *made.validation)}
    assert len(held) > 10
    assert known.isdisjoint(each.id.split("-")[0] for each in held)
    assert verify_disjoint(made.dataset, made.dataset, held).shared == 0


def test_reworded_under_another_quotation_a_mail_is_in_the_same_part(
    prepare: Prepare, records: list[Record]
) -> None:
    """Its own words are near, and the whole text is not; the proof finds it too."""
    again = [(f"x{id_}", f"{message} Please help.", label) for id_, message, label in records]
    first, second = signed(records, 1), signed(again, 2)
    assert jaccard(shingles(first[0][1]), shingles(second[0][1])) < 0.5
    made = prepare([*first, *second])
    held = made.held()
    known = {each.id.removeprefix("x") for each in (*made.train, *made.validation)}
    assert len(held) > 10
    assert known.isdisjoint(each.id.removeprefix("x") for each in held)
    own, other = prepare(first), prepare(second, "--seed", 3)
    held = other.held()
    known = {each.id for each in (*own.train, *own.validation)}
    proof = verify_disjoint(own.dataset, other.dataset, held)
    assert proof.near_copies == sum(each.id.removeprefix("x") in known for each in held) > 10


def test_redacted_in_one_of_two_it_is_the_same_message(tmp_path: Path, sealed: Dataset) -> None:
    """Also if the address is what distinguishes a quotation from the customer's own words."""
    mail = "Where is it?\n\nOn Monday Ann <ann@shop.example> wrote:\nHello there\nand more\nof it"
    seen = Example("a", mail, sealed.train[0].label)
    held = [Example("b", redact_personal_data(mail)[0], seen.label)]
    _, other = pair(tmp_path, sealed, held, REDACTION)
    own = write_dataset(
        tmp_path / "own", name="n", taxonomy=sealed.taxonomy,
        splits={"train": (*sealed.train, seen), "validation": sealed.validation, "holdout": []},
    )  # fmt: skip
    assert verify_disjoint(own, other, held).copies == 1
