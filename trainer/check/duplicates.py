"""Find copies and near-copies under two labels or in two splits.

The hold-out is compared without opening it, by the fingerprints of its messages.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from trainer.check.findings import CONFLICTS, LEAKAGE, Finding, grade
from trainer.dataset.clean import canonical
from trainer.dataset.extra_files import read_groups
from trainer.dataset.folder import Dataset, Example
from trainer.dataset.near_duplicates import Passages, near_clusters, near_pairs, shingles
from trainer.dataset.split import unite, unite_copies
from trainer.similarity import SIMILARITY
from worker.contract.digest import sha256_bytes

_PAIRS_LISTED = 50
_NEAR_A_MESSAGE = 5
_EXACT_CONFLICT_FAIL = 0.01
_NEAR_CONFLICT_WARN = 0.01
_NEAR_LEAK_WARN, _NEAR_LEAK_FAIL = 0.0, 0.01
_LEAKS_LISTED = 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A message without its text: the digest and the hashes of the shingles of its ``canonical``
    form, the customer's own words."""

    key: str
    shingles: frozenset[bytes]


def fingerprint(message: str, passages: Passages = frozenset()) -> Fingerprint:
    """Return a message's fingerprint: copies with other quotations or signatures have the same.
    ``passages``, the dataset's, count for nothing in nearness."""
    key = canonical(message)
    # surrogatepass: a message may hold half of a surrogate pair, which UTF-8 cannot encode.
    hashes = frozenset(
        blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for shingle in shingles(key, passages)
    )
    return Fingerprint(sha256_bytes(key.encode("utf-8", "surrogatepass")), hashes)


def holdout_fingerprints(dataset: Dataset) -> tuple[Fingerprint, ...]:
    """Return the fingerprints of the hold-out's messages, in the file's order."""
    # Not counted as an opening: no text, label or id leaves this function, and nothing can be tuned
    # to fingerprints.
    # split, because splitlines also cuts at U+2028 and other marks that a message may contain.
    lines = (dataset.directory / "holdout.jsonl").read_text(encoding="utf-8").split("\n")
    messages = (json.loads(line)["instruction"] for line in lines if line)
    return tuple(fingerprint(message, dataset.passages) for message in messages)


def number_clusters(
    examples: Sequence[Example], groups: Mapping[str, int] | None = None
) -> NDArray[np.int64]:
    """Number the clusters of copies and near-duplicates, (examples,), as ``prepare`` forms them.

    ``groups`` (message id -> number) unites clusters that a thread or customer links.
    """
    keys = sorted({example.key for example in examples})
    near = near_clusters(keys, similarity=SIMILARITY)
    clusters = [[keys[place] for place in cluster] for cluster in near]
    clusters = unite_copies(clusters, ((example.key, example.message) for example in examples))
    if groups:
        grouped = ((str(groups.get(example.id, "")), example.key) for example in examples)
        clusters = unite(clusters, grouped)
    number = {key: at for at, cluster in enumerate(clusters) for key in cluster}
    return np.array([number[example.key] for example in examples], dtype=np.int64)


def number_groups(dataset: Dataset, examples: Sequence[Example]) -> list[int | None]:
    """Return each example's group number, None if it is alone. Threads, customers and near-copies
    make groups. ``examples`` are those of one split."""
    numbers = number_clusters(examples, read_groups(dataset)).tolist()
    sizes = Counter(numbers)
    return [number if sizes[number] > 1 else None for number in numbers]


@dataclass(frozen=True, slots=True)
class ConflictingPair:
    """Two examples with different labels; ``exact`` if one message is a copy of the other."""

    first: Example
    second: Example
    similarity: float
    exact: bool


def find_conflicts(
    examples: Sequence[Example], prints: Sequence[Fingerprint]
) -> tuple[ConflictingPair, ...]:
    """Return the pairs of copies and near-copies with different labels, at most five for each
    message, the nearest first."""

    def skip(first: int, second: int) -> bool:
        # The list is compared with itself: each pair once, and no message with itself.
        return first >= second or examples[first].label == examples[second].label

    sets = [fingerprint.shingles for fingerprint in prints]
    pairs = near_pairs(sets, sets, SIMILARITY, skip=skip, most=_NEAR_A_MESSAGE)
    found = [
        ConflictingPair(
            examples[first], examples[second], value, prints[first].key == prints[second].key
        )
        for first, second, value in pairs
    ]
    return tuple(sorted(found, key=_order))


def check_conflicts(conflicts: Sequence[ConflictingPair], examples: int) -> Finding:
    """Warn of copies under two labels, and fail above 1 % of messages; warn of near-copies above
    1 %."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for conflict in conflicts:
        kinds["exact" if conflict.exact else "near"] |= {conflict.first.id, conflict.second.id}
    exact, near = len(kinds["exact"]) / max(1, examples), len(kinds["near"]) / max(1, examples)
    verdict = grade(exact, warn=0.0, fail=_EXACT_CONFLICT_FAIL)
    if verdict == "ok" and near > _NEAR_CONFLICT_WARN:
        verdict = "warn"
    figures = {
        "exact_messages": len(kinds["exact"]),
        "near_messages": len(kinds["near"]),
        "pairs": [
            {
                "ids": [conflict.first.id, conflict.second.id],
                "labels": [conflict.first.label, conflict.second.label],
                "similarity": round(conflict.similarity, 3),
            }
            for conflict in conflicts[:_PAIRS_LISTED]
        ],
    }
    found = (
        f"{len(kinds['exact']):,} messages have a copy under another label, "
        f"{len(kinds['near']):,} a near-copy"
    )
    advice = ""
    if verdict != "ok":
        advice = (
            "Decide which label is right: the review queue has the doubtful ones, and check.json "
            "has the pairs' ids."
        )
    return Finding(CONFLICTS, verdict, found, advice, figures)


def check_leakage(
    splits: Sequence[tuple[str, Sequence[Example], Sequence[Fingerprint]]],
    holdout: Sequence[Fingerprint],
) -> Finding:
    """Compare every split with every other. ``splits`` are training and validation: name, examples
    and fingerprints. A copy of a hold-out message fails; near-copies warn, and fail above 1 % of
    the hold-out. Between training and validation both only warn."""
    figures: dict[str, object] = {"similarity": SIMILARITY}
    exact_total, near_total = 0, 0
    for name, examples, prints in splits:
        exact, near = _overlap(prints, holdout)
        exact_total += len(exact)
        near_total += len(near)
        figures[f"{name}_holdout"] = _describe_overlap(examples, exact, near)
    (_, examples, prints), (_, _, others) = splits[0], splits[1]
    exact, near = _overlap(prints, others)
    figures["train_validation"] = _describe_overlap(examples, exact, near)
    share = near_total / max(1, len(holdout))
    verdict = "fail" if exact_total else grade(share, warn=_NEAR_LEAK_WARN, fail=_NEAR_LEAK_FAIL)
    if verdict == "ok" and (exact or near):
        verdict = "warn"
    found = (
        f"{exact_total:,} copies and {near_total:,} near-copies of hold-out messages in the other "
        f"splits; {len(exact) + len(near):,} between training and validation"
    )
    advice = ""
    if verdict != "ok":
        advice = (
            "Prepare the dataset again: it keeps copies and near-copies in one split. Until then "
            "the hold-out measures memory."
        )
    return Finding(LEAKAGE, verdict, found, advice, figures)


def _order(conflict: ConflictingPair) -> tuple[bool, float, str, str]:
    return (not conflict.exact, -conflict.similarity, conflict.first.id, conflict.second.id)


def _overlap(
    prints: Sequence[Fingerprint], others: Sequence[Fingerprint]
) -> tuple[list[int], list[int]]:
    """Return the indexes in ``prints`` that have a copy, and those that have a near-copy."""
    keys = {fingerprint.key for fingerprint in others}
    exact = [at for at, fingerprint in enumerate(prints) if fingerprint.key in keys]
    copies = set(exact)
    pairs = near_pairs(
        [fingerprint.shingles for fingerprint in prints],
        [fingerprint.shingles for fingerprint in others],
        SIMILARITY,
        skip=lambda place, _: place in copies,
        most=1,
    )
    return exact, [place for place, _, _ in pairs]


def _describe_overlap(
    examples: Sequence[Example], exact: Sequence[int], near: Sequence[int]
) -> dict[str, object]:
    return {
        "exact": len(exact),
        "near": len(near),
        "ids": [examples[at].id for at in (*exact, *near)][:_LEAKS_LISTED],
    }
