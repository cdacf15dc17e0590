"""Near-duplicates: found by estimate, decided exactly."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from trainer.dataset.clusters import Clusters
from trainer.dataset.near import jaccard, near_clusters, rows_per_band, shingles, sign


def search(keys: list[str], similarity: float) -> set[frozenset[str]]:
    groups = near_clusters(keys, sign(keys), similarity=similarity)
    return {frozenset(keys[place] for place in group) for group in groups}


def brute_force(keys: list[str], similarity: float) -> set[frozenset[str]]:
    pieces = [shingles(key) for key in keys]
    clusters = Clusters(len(keys))
    for one, other in combinations(range(len(keys)), 2):
        if jaccard(pieces[one], pieces[other]) >= similarity:
            clusters.join(one, other)
    return {frozenset(keys[place] for place in group) for group in clusters.groups()}


def some_texts(count: int) -> list[str]:
    """Return texts of every similarity to each other: random edits of a few of them."""
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(150)]
    stems = [rng.choices(words, k=rng.randint(4, 14)) for _ in range(count // 6)]
    texts = set()
    while len(texts) < count:
        text = list(rng.choice(stems))
        for _ in range(rng.randint(0, 4)):
            text[rng.randrange(len(text))] = rng.choice(words)
        texts.add(" ".join(text))
    return sorted(texts)


@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.7, 0.8])
def test_the_clusters_are_those_of_comparing_every_pair(similarity: float) -> None:
    """Bands, estimates and early ends lose nothing: 300 texts of every similarity, each pair
    compared exactly, give the same clusters."""
    keys = some_texts(300)
    expected = brute_force(keys, similarity)
    assert search(keys, similarity) == expected
    assert {len(one) for one in expected} > {1, 2}


def test_the_order_of_the_texts_changes_nothing() -> None:
    """The same clusters from shuffled texts."""
    keys = some_texts(200)
    expected = search(keys, 0.7)
    random.Random(1).shuffle(keys)
    assert search(keys, 0.7) == expected


def test_a_template_with_thousands_of_copies_is_one_cluster() -> None:
    """A large bucket is searched from one text outwards, also where chains reach beyond it: here
    2,000 copies with another number each, and one text that is near to only some."""
    template = "your ticket {} was created automatically by the form on our page"
    keys = [template.format(1000 + n) for n in range(2000)] + ["hello there my card is gone"]
    found = search(keys, 0.7)
    assert sorted(map(len, found)) == [1, 2000]


def test_letters_case_and_punctuation_do_not_tell_messages_apart_but_words_do() -> None:
    """What counts as the same wording at the default threshold."""
    keys = [
        "what do i do if my card is stolen?",
        "what do i do if my card was stolen",
        "what do i do if my phone is stolen?",
        "???",
        "!",
        "",
    ]
    assert frozenset(keys[:2]) in search(keys, 0.7)
    assert frozenset(keys[2:3]) in search(keys, 0.7)
    assert frozenset(["???"]) in search(keys, 0.7)


def test_a_pair_at_the_threshold_is_missed_once_in_a_thousand_at_most() -> None:
    """The band's length follows the threshold by 1 - (1 - s^r)^b."""
    for similarity in (0.3, 0.5, 0.7, 0.9):
        rows = rows_per_band(similarity)
        assert 1 - (1 - similarity**rows) ** (256 // rows) >= 0.999
        longer = rows + 1
        assert 1 - (1 - similarity**longer) ** (256 // longer) < 0.999


def test_a_group_is_named_by_its_smallest_member() -> None:
    """Whatever the order of the joins."""
    for order in ([(4, 2), (2, 0)], [(2, 0), (4, 0)], [(0, 4), (4, 2)]):
        clusters = Clusters(5)
        for one, other in order:
            clusters.join(one, other)
        assert clusters.groups() == [[0, 2, 4], [1], [3]]
