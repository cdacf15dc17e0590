"""What the manifest counts about messages that are the same, or nearly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainer.dataset.conflicts import Conflict, Unique
from trainer.dataset.row import Row

_GROUPS, _MEMBERS = 5, 6


def count_same(
    own: Unique,
    held: Unique,
    clusters: Sequence[Sequence[str]],
    near_conflicts: Sequence[Sequence[Row]],
) -> dict[str, Any]:
    """Count copies, conflicts and clusters, of the input and the user's own hold-out together."""
    conflicts = own.conflicts + held.conflicts
    sizes = Counter(len(cluster) for cluster in clusters if len(cluster) > 1)
    return {
        "exact_duplicates_removed": own.copies + held.copies,
        "conflicts": {
            "messages": len(conflicts),
            "rows_left_out": own.left_out + held.left_out,
            "settled": dict(Counter(one.why for one in conflicts)),
        },
        "near_clusters": {
            "clusters": sum(sizes.values()),
            "messages": sum(size * count for size, count in sizes.items()),
            "sizes": {str(size): sizes[size] for size in sorted(sizes)},
            "with_several_labels": len(near_conflicts),
        },
    }


def name_examples(
    conflicts: Sequence[Conflict],
    near_conflicts: Sequence[Sequence[Row]],
    clusters: Sequence[Sequence[str]],
    rows: Sequence[Row],
) -> dict[str, list[list[str]]]:
    """Return the first groups of each kind and the largest clusters, a few rows of each by id and
    label: the report shows what is meant, and holds no text."""
    by_key = {row.key: row for row in rows}
    largest = sorted((one for one in clusters if len(one) > 1), key=len, reverse=True)
    return {
        "conflicts": [_name(one.rows) for one in conflicts[:_GROUPS]],
        "near_conflicts": [_name(some) for some in near_conflicts[:_GROUPS]],
        "largest_clusters": [
            _name([by_key[key] for key in cluster]) for cluster in largest[:_GROUPS]
        ],
    }


def _name(rows: Sequence[Row]) -> list[str]:
    named = [f"{row.id} ({row.label})" for row in rows[:_MEMBERS]]
    return [*named, f"and {len(rows) - _MEMBERS} more"] if len(rows) > _MEMBERS else named
