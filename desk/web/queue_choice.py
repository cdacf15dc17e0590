"""A queue as it stands in an address, and the keys of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from desk.core.queue import REASON_BITS, Queue
from worker.contract.taxonomy import Label, Taxonomy

FIELDS = ("batch", "reason", "label", "adapter", "origin", "age", "order")

# Not among them: u undo, s skip, f flag, n none, m note, g guidelines.
_KEYS = "1234567890abcdehijklopqrtvwxyz"


def read_queue(query: Mapping[str, str], taxonomy: Taxonomy) -> Queue:
    """Return the queue that an address names; what is not known restricts nothing."""
    age = query.get("age", "")
    min_age_s = float(age) if age.isascii() and age.isdecimal() and len(age) < 10 else None
    order = query.get("order", "oldest")
    has_age = min_age_s is not None
    if order not in {"oldest", "newest", "doubtful"} or (order == "doubtful" and has_age):
        order = "oldest"
    return Queue(
        reason=_one_of(query.get("reason"), tuple(REASON_BITS)),  # type: ignore[arg-type]
        label=_one_of(query.get("label"), taxonomy.names),
        adapter_digest=query.get("adapter") or None,
        origin=_one_of(query.get("origin"), ("review", "audit")),  # type: ignore[arg-type]
        min_age_s=min_age_s,
        order=order,  # type: ignore[arg-type]
        batch_id=_number(query.get("batch", "")),
    )


def queue_fields(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return what of an address or a form names a queue."""
    return {name: values[name][:200] for name in FIELDS if values.get(name)}


def keyed_labels(taxonomy: Taxonomy) -> Sequence[tuple[str, Label]]:
    """Return the labels with the key of each, "" where there are more labels than keys."""
    keys = [*_KEYS, *[""] * max(0, len(taxonomy.labels) - len(_KEYS))]
    return list(zip(keys, taxonomy.labels, strict=False))


def _number(text: str) -> int | None:
    """Return a batch's number; what is none names no batch that there is."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else -1


def _one_of(value: str | None, known: Sequence[str]) -> str | None:
    return value if value in known else None
