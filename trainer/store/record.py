"""The files that a store keeps next to an adapter: its record (verdict, publisher, reason), and the
probes on which workers try it."""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.evaluation import (
    ANSWERS,
    EVALUATION,
    PAIR_ANSWERS,
    PROBES_NAME,
    Answer,
    EvaluationRecord,
    PairAnswer,
    check_unique,
)
from trainer.artifacts.files import LinesFile, Record, RecordFile, encode_lines
from trainer.errors import BadInput
from trainer.store.rules import Comparison, Criterion, GateRules, GateVerdict
from worker.contract import AdapterRefused, Manifest, read_manifest
from worker.contract.digest import sha256_bytes, sha256_file, write_atomically
from worker.contract.store import Pointer, read_pointer, stored_digests
from worker.contract.verify import ProbeFile, probes_path, read_probes, write_probes


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evaluation's figures and answers; ``sha256`` is that of its file at ``path``.

    Both contain only figures, labels and ids, so a store may keep them. ``pairs`` are the answers
    to messages with an instruction; a store does not keep them.
    """

    path: Path
    sha256: str
    evaluation: EvaluationRecord
    answers: tuple[Answer, ...]
    pairs: tuple[PairAnswer, ...] = ()

    @property
    def kept_answers(self) -> bytes:
        """The answers in the store's form, JSON Lines."""
        return encode_lines(self.answers)


def read_evidence(directory: Path) -> Evidence:
    """Read an evaluation's folder. Raises BadInput that names file and key."""
    path = directory / EVALUATION.name
    evaluation = EVALUATION.read(directory)
    pairs = PAIR_ANSWERS.read_if_present(directory) or ()
    answers = read_answers(directory, ANSWERS)
    return Evidence(path, sha256_file(path), evaluation, answers, tuple(pairs))


def read_answers(directory: Path, file: LinesFile[Answer]) -> tuple[Answer, ...]:
    """Read an evaluation's answers. Raises BadInput that names the line, also for a duplicate
    id."""
    answers = file.read(directory)
    check_unique(answers, directory / file.name)
    return answers


ProbeChoice = Literal["written", "validation", "off"]


@dataclass(frozen=True, slots=True)
class PlannedProbes:
    """The choice, and the resulting file, None for ``off``."""

    choice: ProbeChoice
    file: ProbeFile | None

    @property
    def count(self) -> int:
        """The number of messages."""
        return len(self.file.probes) if self.file else 0


def plan_probes(
    adapter: Path,
    manifest: Manifest,
    evaluation: Path,
    choice: ProbeChoice | None,
    stored: ProbeFile | None = None,
) -> PlannedProbes:
    """Return the probes to store. Without a choice these are the ones that the store already has
    for this adapter (``stored``), or the written messages of the evaluation, or none.

    Raises BadInput if the chosen probes do not exist; AdapterRefused if a file is damaged.
    """
    # Never customers' messages by default: those go into a store only if asked for.
    if choice == "off":
        return PlannedProbes("off", None)
    if choice is None and stored is not None:
        return PlannedProbes(stored.source, stored)
    own = read_probes(probes_path(adapter), manifest)
    if choice == "validation":
        if own is None or own.source != "validation":
            raise BadInput(
                f"--probes validation: {probes_path(adapter)} has none: train with "
                "probes_per_label above 0, or choose --probes written or off"
            )
        return PlannedProbes("validation", own)
    written = read_probes(evaluation / PROBES_NAME, manifest)
    if written is None and own is not None and own.source == "written":
        written = own  # the adapter comes from another store
    if written is not None and written.probes:
        return PlannedProbes("written", written)
    if choice == "written":
        raise BadInput(
            f"--probes written: {evaluation / PROBES_NAME} has none: run clerk-trainer evaluate "
            "--probes FILE with messages written for this, or choose --probes validation or off"
        )
    return PlannedProbes("off", None)


def stored_probes(store: Path, manifest: Manifest) -> ProbeFile | None:
    """Return the probes that a store has for an adapter. Damaged ones count as none, so that a
    publication replaces them."""
    try:
        return read_probes(probes_path(store / manifest.digest), manifest)
    except AdapterRefused:
        return None


def place_probes(store: Path, digest: str, planned: PlannedProbes) -> None:
    """Write the probes next to a stored adapter, or remove existing ones. They are readable by the
    owner and the group of the store's folder. Raises OSError."""
    path = probes_path(store / digest)
    if planned.file is None:
        path.unlink(missing_ok=True)
        return
    write_probes(path, planned.file)
    # Workers run in the group of the store's folder. A user who may not give the file to it keeps
    # their own group, which ``describe`` reports.
    with suppress(PermissionError):
        os.chown(path, -1, store.stat().st_gid)


def describe(store: Path, digest: str, planned: PlannedProbes) -> str:
    """Describe for the user which messages the store has now, and who may read them."""
    if planned.choice == "off":
        return (
            "probes: off. The store has no messages, and workers start this adapter without "
            "trying it on any (clerk-trainer evaluate --probes FILE adds written ones)"
        )
    whose = {
        "written": "messages written for this",
        "validation": "MESSAGES OF CUSTOMERS, from the validation set,",
    }[planned.choice]
    path = probes_path(store / digest)
    readers = "its owner and its group"
    if path.exists():
        readers += f" {_group_name(path.stat().st_gid)}, which must be the workers' group"
    return f"probes: {planned.count} {whose} as text in {path}, for {readers}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


class GateRecord(Record):
    """The gate's verdict: its rules, each criterion, and the comparisons, if any. ``forced``: the
    adapter was published although the gate refused it."""

    passed: bool
    forced: bool
    rules: Mapping[str, Any]
    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    anchor: Comparison | None = None


class AdapterRecord(Record):
    """``STORE/<digest>.json``. The three fields of the evaluation are None if the adapter was
    published by force without one; ``evaluation`` is the content of ``evaluation.json``.
    ``anchor`` is the digest of the adapter with which each successor is compared too, beside the
    current one; None if it is this one."""

    schema_id: Literal["adapter-record/1"] = Field("adapter-record/1", alias="schema")
    digest: str
    name: str
    published_at: str
    published_by: str
    reason: str | None
    source: str
    gate: GateRecord
    anchor: str | None = None
    evaluation_sha256: str | None = None
    predictions_sha256: str | None = None
    evaluation: Mapping[str, Any] | None = None
    probes: ProbeChoice
    probe_count: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter of a store, as ``clerk-trainer list`` shows it. Figures are None if it was
    published without an evaluation.

    ``gate`` is "passed", "forced", or "unfinished" if the publisher was killed before it wrote the
    record.
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
    holdout_sha256: str | None
    gate: str
    current_since: str | None


def record_file(digest: str) -> RecordFile[AdapterRecord]:
    """Return the file of an adapter's record."""
    return RecordFile(f"{digest}.json", AdapterRecord, "clerk-trainer publish")


def answers_file(digest: str) -> LinesFile[Answer]:
    """Return the file of an adapter's answers; it exists if the record has an evaluation."""
    return replace(ANSWERS, name=f"{digest}.predictions.jsonl", command="clerk-trainer publish")


def make_record(
    manifest: Manifest,
    evidence: Evidence | None,
    gate: GateRecord,
    *,
    anchor: str | None,
    at: str,
    by: str,
    reason: str | None,
    source: str,
    probes: PlannedProbes,
) -> AdapterRecord:
    """Return an adapter's record, without an evaluation of another adapter (possible by force)."""
    record = AdapterRecord(
        digest=manifest.digest,
        name=manifest.name,
        published_at=at,
        published_by=by,
        reason=reason,
        source=source,
        gate=gate,
        anchor=anchor,
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
    """Return the gate's verdict as a record."""
    return GateRecord(
        passed=verdict.passed,
        forced=forced,
        rules=asdict(rules),
        criteria=verdict.criteria,
        comparison=verdict.comparison,
        anchor=verdict.anchor,
    )


def write_record(store: Path, record: AdapterRecord, evidence: Evidence | None) -> None:
    """Write an adapter's answers, then its record. Without an evaluation (by force), an earlier one
    of the same adapter is kept. Raises OSError and BadInput."""
    file = record_file(record.digest)
    if record.evaluation is not None:
        assert evidence is not None
        # First: a kill in between leaves answers without a record, never a record without answers.
        write_atomically(store / answers_file(record.digest).name, evidence.kept_answers)
    elif earlier := file.read_if_present(store):
        kept = ("evaluation_sha256", "predictions_sha256", "evaluation")
        record = record.model_copy(update={name: getattr(earlier, name) for name in kept})
    file.write(store, record)


def stored_evidence(store: Path, digest: str) -> Evidence | None:
    """Return the evaluation that a stored adapter was published with, if any. Raises BadInput."""
    record = record_file(digest).read_if_present(store)
    if record is None or record.evaluation is None:
        return None
    path = store / record_file(digest).name
    evaluation = EVALUATION.validate(record.evaluation, path)
    file = answers_file(digest)
    answers = read_answers(store, file)
    if sha256_file(store / file.name) != record.predictions_sha256:
        raise BadInput(
            f"{store / file.name}: not the file that {path.name} describes: publish it again"
        )
    return Evidence(path, str(record.evaluation_sha256), evaluation, answers)


def find_anchor(store: Path, digest: str) -> str:
    """Return the digest of the anchor of a stored adapter's series. Raises BadInput."""
    record = record_file(digest).read_if_present(store)
    return (record.anchor if record else None) or digest


def find_dataset_of(store: Path, digest: str) -> Path | None:
    """Return the folder of the dataset that a stored adapter was trained on, if its record names
    one. Raises AdapterRefused and BadInput."""
    own = read_manifest(store / digest).data.get("digest")
    kept = stored_evidence(store, digest)
    dataset = kept.evaluation.dataset if kept else None
    return Path(dataset.directory) if dataset and dataset.digest == own else None


def list_store(store: Path) -> tuple[Pointer | None, list[Stored]]:
    """Return the pointer and every adapter, the latest published first. Raises BadInput and
    AdapterRefused."""
    if not store.is_dir():
        raise BadInput(f"{store}: there is no such store: make one with clerk-trainer publish")
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
        holdout_sha256=evaluation.dataset.holdout_sha256 if evaluation else None,
        gate=_gate(record),
        current_since=pointer.since if pointer and is_current else None,
    )


def _evaluation_of(record: AdapterRecord | None, store: Path) -> EvaluationRecord | None:
    """Return a record's figures, or None if there are none or this version cannot read them."""
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
