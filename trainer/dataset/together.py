"""Which messages have to stay on one side: near-duplicates, copies, and members of a group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import scipy

from trainer.dataset.clean import canonical
from worker.contract.digest import sha256_bytes

Key = TypeVar("Key", int, str)
"""A message, or copies of it: a number, or its text."""


def unite(clusters: Sequence[Sequence[Key]], grouped: Iterable[tuple[str, Key]]) -> list[list[Key]]:
    """Return the clusters of keys, those united that a group links, and so on: two messages are
    together if a chain of near-duplicates and of common groups leads from one to the other (the
    connected components; union-find, Tarjan 1975).

    ``grouped`` are a group and the key of a message of it, once for each message. A message that
    occurs in two groups links these; an empty group links nothing. Units and their members are in
    the order of the keys.
    """
    sets = scipy.cluster.hierarchy.DisjointSet(key for cluster in clusters for key in cluster)
    for cluster in clusters:
        for key in cluster[1:]:
            sets.merge(cluster[0], key)
    first: dict[str, Key] = {}
    for group, key in grouped:
        if group:
            sets.merge(first.setdefault(group, key), key)
    return sorted(sorted(unit) for unit in sets.subsets())


def unite_copies(
    clusters: Sequence[Sequence[Key]], messages: Iterable[tuple[Key, str]]
) -> list[list[Key]]:
    """Return the clusters of keys, those united that hold one message in two forms: signed,
    quoted below or redacted otherwise (``canonical``), which leaves hardly a word in common where
    what was cut is long. ``messages`` are a key and a message of it each."""
    first: dict[int, Key] = {}
    same: list[tuple[str, Key]] = []
    for key, message in messages:
        # 64 bits for each message, not its text. That two unlike messages among a million get the
        # same is unlikely (3 in 10^8), and then they only come into one part.
        form = int(sha256_bytes(canonical(message).encode("utf-8", "surrogatepass"))[:16], 16)
        if first.setdefault(form, key) != key:
            same += [(str(form), first[form]), (str(form), key)]
    linked = {key for _, key in same}
    united = unite([cluster for cluster in clusters if not linked.isdisjoint(cluster)], same)
    united += [list(cluster) for cluster in clusters if linked.isdisjoint(cluster)]
    return sorted(united, key=lambda cluster: cluster[0])
