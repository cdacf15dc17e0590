"""What a store keeps of its adapters beside them: how each was judged, by whom it came and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.evaluation import ANSWERS, EVALUATION, Answer, EvaluationRecord
from trainer.artifacts.files import LinesFile, Record, RecordFile
from trainer.errors import BadInput
from trainer.store.evidence import Evidence, read_answers
from trainer.store.files import stored_digests
from trainer.store.gate_rules import GateRules
from trainer.store.probes import PlannedProbes, ProbeChoice
from trainer.store.verdict import Comparison, Criterion, GateVerdict
from worker.contract import AdapterRefused, Manifest, read_manifest
from worker.contract.digest import sha256_bytes, sha256_file, write_atomically
from worker.contract.store import Pointer, read_pointer


class GateRecord(Record):
    """The gate's verdict: its rules by name, each criterion, and the comparison if there was one.
    ``forced``: the adapter was published although the gate refused it."""

    passed: bool
    forced: bool
    rules: Mapping[str, Any]
    criteria: tuple[Criterion, ...]
    comparison: Comparison | None


class AdapterRecord(Record):
    """``STORE/<digest>.json``. The evaluation's three are None where the adapter was published, by
    force, without an evaluation of its own; ``evaluation`` is the content of ``evaluation.json``.
    ``probes`` says whose messages it was published with."""

    schema_id: Literal["adapter-record/1"] = Field("adapter-record/1", alias="schema")
    digest: str
    name: str
    published_at: str
    published_by: str
    reason: str | None
    source: str
    gate: GateRecord
    evaluation_sha256: str | None = None
    predictions_sha256: str | None = None
    evaluation: Mapping[str, Any] | None = None
    probes: ProbeChoice
    probe_count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter of a store, for people and machines. Figures are None where it was published
    without an evaluation.

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


def record_file(digest: str) -> RecordFile[AdapterRecord]:
    """Return the file of an adapter's record."""
    return RecordFile(f"{digest}.json", AdapterRecord, "clerk-trainer publish")


def answers_file(digest: str) -> LinesFile[Answer]:
    """Return the file of an adapter's answers; it is there if the record has an evaluation."""
    return replace(ANSWERS, name=f"{digest}.predictions.jsonl", command="clerk-trainer publish")


def make_record(
    manifest: Manifest,
    evidence: Evidence | None,
    gate: GateRecord,
    *,
    at: str,
    by: str,
    reason: str | None,
    source: str,
    probes: PlannedProbes,
) -> AdapterRecord:
    """Return an adapter's record. The adapter itself stays as it was evaluated.

    An evaluation of another adapter (published by force) is not taken down as this one's.
    """
    record = AdapterRecord(
        digest=manifest.digest,
        name=manifest.name,
        published_at=at,
        published_by=by,
        reason=reason,
        source=source,
        gate=gate,
        probes=probes.choice,
        probe_count=probes.count,
    )
    if evidence is None or evidence.evaluation.adapter.digest != manifest.digest:
        return record
    return record.model_copy(
        update={
            "evaluation_sha256": evidence.sha256,
            "predictions_sha256": sha256_bytes(evidence.kept_answers),
            "evaluation": evidence.evaluation.to_json(),
        }
    )


def make_gate_record(verdict: GateVerdict, rules: GateRules, *, forced: bool) -> GateRecord:
    """Return the gate's rows and rules as they are written down."""
    return GateRecord(
        passed=verdict.passed,
        forced=forced,
        rules=asdict(rules),
        criteria=verdict.criteria,
        comparison=verdict.comparison,
    )


def write_record(store: Path, record: AdapterRecord, evidence: Evidence | None) -> None:
    """Write an adapter's answers, then its record. Raises OSError and BadInput.

    Without an evaluation (published by force) an earlier one of the same adapter is kept.
    """
    file = record_file(record.digest)
    if record.evaluation is not None:
        assert evidence is not None
        write_atomically(store / answers_file(record.digest).name, evidence.kept_answers)
    elif earlier := file.read_if_present(store):
        kept = ("evaluation_sha256", "predictions_sha256", "evaluation")
        record = record.model_copy(update={name: getattr(earlier, name) for name in kept})
    file.write(store, record)


def stored_evidence(store: Path, digest: str) -> Evidence | None:
    """Return the evaluation that a stored adapter was published with, None where it had none.

    Raises BadInput.
    """
    record = record_file(digest).read_if_present(store)
    if record is None or record.evaluation is None:
        return None
    path = store / record_file(digest).name
    evaluation = EVALUATION.validate(record.evaluation, path)
    file = answers_file(digest)
    answers = read_answers(store, file)
    if sha256_file(store / file.name) != record.predictions_sha256:
        raise BadInput(
            f"{store / file.name}: not the file that {path.name} names: publish it again"
        )
    return Evidence(path, str(record.evaluation_sha256), evaluation, answers)


def list_store(store: Path) -> tuple[Pointer | None, list[Stored]]:
    """Return the pointer and every adapter, the latest published first. Raises BadInput and
    AdapterRefused."""
    if not store.is_dir():
        raise BadInput(f"{store}: there is no such store: clerk-trainer publish makes one")
    pointer = read_pointer(store)
    found = [_stored(store, digest, pointer) for digest in stored_digests(store)]
    return pointer, sorted(found, key=lambda stored: stored.published_at or "", reverse=True)


def _stored(store: Path, digest: str, pointer: Pointer | None) -> Stored:
    record = record_file(digest).read_if_present(store)
    evaluation = _evaluation_of(record, store)
    is_current = pointer is not None and pointer.digest == digest
    return Stored(
        digest=digest,
        name=record.name if record else _name(store / digest),
        published_at=record.published_at if record else None,
        published_by=record.published_by if record else None,
        reason=record.reason if record else None,
        accuracy=evaluation.accuracy if evaluation else None,
        accuracy_interval_95=evaluation.accuracy_interval_95 if evaluation else None,
        macro_f1=evaluation.macro_f1 if evaluation else None,
        examples=evaluation.examples if evaluation else None,
        limited=evaluation.limited if evaluation else None,
        holdout_sha256=evaluation.dataset.holdout_sha256 if evaluation else None,
        gate=_gate(record),
        current_since=pointer.since if pointer and is_current else None,
    )


def _evaluation_of(record: AdapterRecord | None, store: Path) -> EvaluationRecord | None:
    """Return the figures of a record; one that this version cannot read has none to show."""
    if record is None or record.evaluation is None:
        return None
    try:
        return EVALUATION.validate(record.evaluation, store / record_file(record.digest).name)
    except BadInput:
        return None


def _gate(record: AdapterRecord | None) -> str:
    if record is None:
        return "unfinished"
    return "forced" if record.gate.forced else "passed"


def _name(directory: Path) -> str:
    try:
        return read_manifest(directory).name
    except AdapterRefused:
        return "(not readable)"
