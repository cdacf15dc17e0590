"""Which messages have to stay on one side: near-duplicates, and members of a group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import scipy

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
