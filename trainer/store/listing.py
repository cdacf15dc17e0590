"""What a store holds, for people and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.store.record import read_record, record_path, stored_digests
from worker.contract import AdapterRefused, read_manifest
from worker.contract.store import Pointer, read_pointer


@dataclass(frozen=True, slots=True)
class Stored:
    """One adapter of a store. Figures are None where it was published without an evaluation.

    ``limited`` says that only a part of the hold-out was judged; ``gate`` is "passed", "forced"
    or, where a kill came before the record, "unfinished".
    """

    digest: str
    name: str
    published_at: str | None
    published_by: str | None
    reason: str | None
    accuracy: float | None
    accuracy_interval_95: tuple[float, float] | None
    macro_f1: float | None
    examples: int | None
    limited: bool | None
    holdout_sha256: str | None
    gate: str
    current_since: str | None


def list_store(store: Path) -> tuple[Pointer | None, list[Stored]]:
    """Return the pointer and every adapter, the latest published first. Raises BadInput and
    AdapterRefused."""
    if not store.is_dir():
        raise BadInput(f"{store}: there is no such store: clerk-trainer publish makes one")
    pointer = read_pointer(store)
    found = [_stored(store, one, pointer) for one in stored_digests(store)]
    return pointer, sorted(found, key=lambda one: one.published_at or "", reverse=True)


def _stored(store: Path, digest: str, pointer: Pointer | None) -> Stored:
    is_current = pointer is not None and pointer.digest == digest
    has_record = record_path(store, digest).exists()
    record: Mapping[str, Any] = read_record(store, digest) if has_record else {}
    evaluation: Mapping[str, Any] = record.get("evaluation") or {}
    interval = evaluation.get("accuracy_interval_95")
    return Stored(
        digest=digest,
        name=record["name"] if has_record else _name(store / digest),
        published_at=record.get("published_at"),
        published_by=record.get("published_by"),
        reason=record.get("reason"),
        accuracy=evaluation.get("accuracy"),
        accuracy_interval_95=(interval[0], interval[1]) if interval else None,
        macro_f1=evaluation.get("macro_f1"),
        examples=evaluation.get("examples"),
        limited=evaluation.get("limited"),
        holdout_sha256=evaluation.get("dataset", {}).get("holdout_sha256"),
        gate=_gate(record),
        current_since=pointer.since if pointer and is_current else None,
    )


def _gate(record: Mapping[str, Any]) -> str:
    if not record:
        return "unfinished"
    return "forced" if record["gate"]["forced"] else "passed"


def _name(directory: Path) -> str:
    try:
        return read_manifest(directory).name
    except AdapterRefused:
        return "(not readable)"
