"""Which messages have to stay on one side: near-duplicates, copies, and members of a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import scipy

from trainer.dataset.clean import canonical
from trainer.dataset.folder import Example, Row


def unite(clusters: Sequence[Sequence[str]], grouped: Iterable[tuple[str, str]]) -> list[list[str]]:
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
    first: dict[str, str] = {}
    for group, key in grouped:
        if group:
            sets.merge(first.setdefault(group, key), key)
    return sorted(sorted(unit) for unit in sets.subsets())


def unite_copies(
    clusters: Sequence[Sequence[str]], messages: Iterable[Example | Row]
) -> Sequence[Sequence[str]]:
    """Return the clusters of keys, those united that hold one message in two forms: signed,
    quoted below or redacted otherwise (``canonical``), which leaves hardly a word in common where
    what was cut is long."""
    form_of = {message.key: canonical(message.message) for message in messages}
    shared = {form for form, count in Counter(form_of.values()).items() if count > 1}
    if not shared:
        return clusters
    alone: list[Sequence[str]] = []
    linked: list[Sequence[str]] = []
    for cluster in clusters:
        (linked if any(form_of[key] in shared for key in cluster) else alone).append(cluster)
    united = unite(linked, ((form, key) for key, form in form_of.items() if form in shared))
    return sorted([*alone, *united], key=min)
