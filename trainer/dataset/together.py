"""Which messages have to stay on one side: near-duplicates, and members of a group."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.cluster.hierarchy import DisjointSet

from trainer.dataset.folder import Row


def unite(clusters: Sequence[Sequence[str]], rows: Sequence[Row]) -> list[list[str]]:
    """Return the clusters of keys, those united that a group of the rows links, and so on: two
    messages are together if a chain of near-duplicates and of common groups leads from one to the
    other (the connected components; union-find, Tarjan 1975).

    A message that occurs in two groups links these. Rows without a group link nothing. Units and
    their members are in the order of the keys.
    """
    sets = DisjointSet(key for cluster in clusters for key in cluster)
    for cluster in clusters:
        for key in cluster[1:]:
            sets.merge(cluster[0], key)
    first: dict[str, str] = {}
    for row in rows:
        if row.group:
            sets.merge(first.setdefault(row.group, row.key), row.key)
    return sorted(sorted(unit) for unit in sets.subsets())
