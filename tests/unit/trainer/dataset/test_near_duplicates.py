"""Near-duplicates: found without comparing every pair, and exactly those."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from trainer.dataset.near_duplicates import jaccard, near_clusters, near_pairs, shingles


def search(keys: list[str], similarity: float) -> set[frozenset[str]]:
    groups = near_clusters(keys, similarity=similarity)
    return {frozenset(keys[place] for place in group) for group in groups}


def brute_force(keys: list[str], similarity: float) -> set[frozenset[str]]:
    sets = [shingles(key) for key in keys]
    cluster_of = {key: frozenset([key]) for key in keys}
    for left, right in combinations(range(len(keys)), 2):
        if jaccard(sets[left], sets[right]) >= similarity:
            together = cluster_of[keys[left]] | cluster_of[keys[right]]
            cluster_of |= dict.fromkeys(together, together)
    return set(cluster_of.values())


def some_texts(count: int) -> list[str]:
    """Return texts of every similarity to each other: random edits of a few of them."""
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(150)]
    stems = [rng.choices(words, k=rng.randint(4, 14)) for _ in range(count // 6)]
    texts: set[str] = set()
    while len(texts) < count:
        text = list(rng.choice(stems))
        for _ in range(rng.randint(0, 4)):
            text[rng.randrange(len(text))] = rng.choice(words)
        texts.add(" ".join(text))
    return sorted(texts)


@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.7, 0.8])
def test_the_clusters_are_those_of_comparing_every_pair(similarity: float) -> None:
    """Prefixes, bounds and early ends lose nothing: 300 texts of every similarity, each pair
    compared exactly, give the same clusters."""
    keys = some_texts(300)
    expected = brute_force(keys, similarity)
    assert search(keys, similarity) == expected
    assert {len(cluster) for cluster in expected} > {1, 2}


def test_the_order_of_the_texts_changes_nothing() -> None:
    """The same clusters from shuffled texts."""
    keys = some_texts(200)
    expected = search(keys, 0.7)
    random.Random(1).shuffle(keys)
    assert search(keys, 0.7) == expected


def test_a_template_with_thousands_of_copies_is_one_cluster() -> None:
    """A cluster is searched from one text outwards and what was found is looked at no more: here
    2,000 copies with another number each, and one text that is near to none."""
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


def test_a_pair_at_the_threshold_is_never_missed() -> None:
    """The similarity of each of some pairs as the threshold: the pair is found, by either use."""
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


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_a_group_is_named_by_its_smallest_member(order: tuple[int, ...]) -> None:
    """Whatever the order of the texts that hang together, here each with the next."""
    text = "where is the parcel that i have ordered from you last week"
    chain = [text, f"{text} please", f"{text} please tell me"]
    sets = [shingles(key) for key in chain]
    assert jaccard(sets[0], sets[2]) < 0.85 <= min(map(jaccard, sets[:2], sets[1:]))
    keys = [chain[order[0]], "my card", chain[order[1]], "no money", chain[order[2]]]
    assert near_clusters(keys, similarity=0.85) == [[0, 2, 4], [1], [3]]


def test_nothing_is_near_to_nothing() -> None:
    """A dataset whose every message was dropped, and one without a hold-out to compare with."""
    some = [shingles("my card was stolen")]
    assert near_clusters([], similarity=0.7) == []
    assert near_clusters([""], similarity=0.7) == [[0]]
    assert list(near_pairs([], [], 0.7)) == []
    assert list(near_pairs(some, [], 0.7)) == []
    assert list(near_pairs([], some, 0.7)) == []
