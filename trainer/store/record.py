"""What a store keeps of an adapter beside it: how it was judged, by whom it came and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.store.evidence import Evidence, make_evidence
from trainer.store.gate import Verdict
from trainer.store.rules import GateRules
from worker.contract import Manifest
from worker.contract.digest import sha256_bytes, write_atomically
from worker.contract.store import is_digest

SCHEMA = "adapter-record/1"

Record = Mapping[str, Any]

_EVALUATION_OF_NONE: Record = {
    "evaluation_sha256": None,
    "predictions_sha256": None,
    "evaluation": None,
}


def record_path(store: Path, digest: str) -> Path:
    """Where an adapter's record is."""
    return store / f"{digest}.json"


def predictions_path(store: Path, digest: str) -> Path:
    """Where the copy of its predictions is, if it has any."""
    return store / f"{digest}.predictions.jsonl"


def make_record(
    manifest: Manifest,
    evidence: Evidence | None,
    verdict: Verdict,
    rules: GateRules,
    *,
    forced: bool,
    at: str,
    by: str,
    reason: str | None,
    source: str,
) -> dict[str, Any]:
    """Return an adapter's record. The adapter itself stays as it was evaluated.

    An evaluation of another adapter (published by force) is not taken down as this one's.
    """
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "digest": manifest.digest,
        "name": manifest.name,
        "published_at": at,
        "published_by": by,
        "reason": reason,
        "source": source,
        "gate": gate_record(verdict, rules, forced=forced),
        **_EVALUATION_OF_NONE,
    }
    if evidence and evidence.adapter_digest == manifest.digest:
        record |= {
            "evaluation_sha256": evidence.sha256,
            "predictions_sha256": sha256_bytes(evidence.kept_predictions),
            "evaluation": dict(evidence.record),
        }
    return record


def gate_record(verdict: Verdict, rules: GateRules, *, forced: bool) -> dict[str, Any]:
    """Return the gate's rows and rules as JSON."""
    return {
        "passed": verdict.passed,
        "forced": forced,
        "rules": asdict(rules),
        "criteria": [asdict(one) for one in verdict.criteria],
        "comparison": asdict(verdict.comparison) if verdict.comparison else None,
    }


def write_record(store: Path, record: Record, evidence: Evidence | None) -> None:
    """Write an adapter's predictions, then its record. Raises OSError and BadInput.

    Without an evaluation (published by force) an earlier one of the same adapter is kept.
    """
    digest = record["digest"]
    if record["evaluation"] is not None:
        assert evidence is not None
        write_atomically(predictions_path(store, digest), evidence.kept_predictions)
    elif record_path(store, digest).exists():
        earlier = read_record(store, digest)
        record = {**record, **{key: earlier.get(key) for key in _EVALUATION_OF_NONE}}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(record_path(store, digest), text.encode("utf-8") + b"\n")


def read_record(store: Path, digest: str) -> Record:
    """Read an adapter's record. Raises BadInput."""
    path = record_path(store, digest)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: no adapter's record: {error}: publish the adapter again") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not an {SCHEMA}: publish the adapter again")
    return record


def stored_evidence(store: Path, digest: str) -> Evidence | None:
    """Return the evaluation that a stored adapter was published with, None where it had none.

    Raises BadInput.
    """
    path = record_path(store, digest)
    if not path.exists():
        return None
    record = read_record(store, digest)
    if record.get("evaluation") is None:
        return None
    sha256 = str(record.get("evaluation_sha256"))
    predictions = predictions_path(store, digest)
    found = make_evidence(path, record["evaluation"], sha256, predictions)
    if sha256_bytes(found.kept_predictions) != record.get("predictions_sha256"):
        raise BadInput(f"{predictions}: not the file that {path.name} names: publish it again")
    return found


def stored_digests(store: Path) -> list[str]:
    """Return the digests of all adapters in a store, those without a record too."""
    return sorted(one.name for one in store.iterdir() if is_digest(one.name) and one.is_dir())
