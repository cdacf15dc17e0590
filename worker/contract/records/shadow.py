"""What a shadow made of a record: an output record, with what the main adapter said in headers.

Nobody acts on it. It is on a topic of its own, in the same transaction as the real result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.contract.errors import RecordRefused
from worker.contract.records.output import OutputRecord, read_output

MAIN_LABEL = "clerk.main.label"
MAIN_ADAPTER_DIGEST = "clerk.main.adapter.digest"


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """The shadow's ``output``, and the label that the main adapter gave to the same message."""

    output: OutputRecord
    main_label: str
    main_adapter_digest: str


def shadow_headers(main_label: str, main_adapter_digest: str) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that are added to those of the input record."""
    return (
        (MAIN_LABEL, main_label.encode()),
        (MAIN_ADAPTER_DIGEST, main_adapter_digest.encode()),
    )


def read_shadow(
    value: bytes | str | None, headers: Sequence[tuple[str, bytes | None]]
) -> ShadowRecord:
    """Read a record of the shadow topic. Raises RecordRefused."""
    output = read_output(value)
    found = dict(headers)  # of two headers of one name the later one is the worker's
    label, digest = found.get(MAIN_LABEL), found.get(MAIN_ADAPTER_DIGEST)
    if label is None or digest is None:
        raise RecordRefused(
            "the shadow record", f"lacks the header {MAIN_LABEL} or {MAIN_ADAPTER_DIGEST}"
        )
    return ShadowRecord(output, label.decode("utf-8", "replace"), digest.decode("utf-8", "replace"))
