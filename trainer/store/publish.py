"""Publishing: judged first, with nothing written; then carried out, so that a kill harms nothing.

The order is adapter, predictions, record, history, pointer. The pointer alone makes an adapter
current: a kill before it leaves the old one serving, and the same command again completes.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.errors import BadInput, NotGoodEnough
from trainer.store.canary import put_on_trial
from trainer.store.evidence import EVALUATION_NAME, Evidence, read_evidence
from trainer.store.files import place_adapter, sweep, sync_directory
from trainer.store.gate import Verdict, judge
from trainer.store.history import Entry, append_entry, path_to, pointer_for, read_history
from trainer.store.lock import locked
from trainer.store.record import make_record, stored_evidence, write_record
from trainer.store.regression import Comparison, compare
from trainer.store.rules import GateRules
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter
from worker.contract.store import (
    Pointer,
    load_stored,
    read_canary,
    read_pointer,
    remove_canary,
    write_pointer,
)
from worker.contract.timestamps import rfc3339_now


@dataclass(frozen=True, slots=True)
class Plan:
    """A judged publication. ``current`` is the pointer it was judged against.

    ``is_current`` says that there is nothing to do.
    """

    source: Path
    store: Path
    manifest: Manifest
    rules: GateRules
    evidence: Evidence | None
    verdict: Verdict
    current: Pointer | None
    is_current: bool

    @property
    def way_to_compare(self) -> str | None:
        """How to make the comparison with the current adapter possible, where it is not."""
        if self.verdict.incomparable is None or self.evidence is None or self.current is None:
            return None
        dataset = self.evidence.record["dataset"].get("directory", "DATASET")
        return (
            "to compare with the current adapter on the same hold-out: clerk-trainer evaluate "
            f"{self.store / self.current.digest} --dataset {dataset} --base DIR --out DIR, then "
            "publish with --current-evaluation DIR (or --allow-unpaired to go without)"
        )


def plan_publication(
    source: Path,
    store: Path,
    *,
    evaluation: Path | None = None,
    current_evaluation: Path | None = None,
    rules: GateRules | None = None,
    allow_unpaired: bool = False,
    allow_unjudged: bool = False,
) -> Plan:
    """Verify and judge an adapter, or a run that holds one as ``adapter``. Writes nothing.

    ``evaluation`` is a folder, by default the run's; ``current_evaluation`` one of the adapter
    that is current, for when the store's own is of another hold-out. ``allow_unjudged`` goes on
    without an evaluation, to a verdict that fails. Raises AdapterRefused and BadInput.
    """
    rules = rules or GateRules()
    adapter = _adapter_in(source)
    manifest = load_adapter(adapter)
    current = read_pointer(store)
    folder = evaluation or source / "evaluation"
    evidence = None
    if evaluation or (folder / EVALUATION_NAME).exists():
        evidence = read_evidence(folder)
    elif not allow_unjudged and not (current and current.digest == manifest.digest):
        raise BadInput(
            f"{folder}: holds no {EVALUATION_NAME}: run clerk-trainer evaluate, or name its "
            "folder with --evaluation"
        )
    against = _compare_with_current(store, current, evidence, current_evaluation)
    return Plan(
        source=adapter,
        store=store,
        manifest=manifest,
        rules=rules,
        evidence=evidence,
        verdict=judge(manifest, evidence, rules, against, allow_unpaired=allow_unpaired),
        current=current,
        is_current=current is not None and _serves(store, current, manifest.digest),
    )


def carry_out(
    plan: Plan,
    *,
    force: bool = False,
    reason: str | None = None,
    canary_share: float | None = None,
) -> Pointer:
    """Publish what was planned and return the pointer that stands.

    With ``canary_share`` the adapter is put on trial for that share of the keys, and the pointer
    stays. By force, one that is current is published again, so that workers that refused it as
    worse take it up. Raises NotGoodEnough when the gate said no and it is not forced, BadInput
    when another publication came between or holds the lock, AdapterRefused, ProofFailed and
    OSError; after any of them the pointer is as it was.
    """
    if plan.is_current and (not force or canary_share is not None):
        assert plan.current is not None
        return plan.current
    if canary_share is not None and plan.current is None:
        raise BadInput(f"{plan.store}: nothing is current there: publish without --canary first")
    forced = not plan.verdict.passed or plan.is_current
    if forced and not force:
        raise NotGoodEnough(
            f"{plan.manifest.name} does not pass the gate ({', '.join(plan.verdict.failed)}): "
            f"nothing was published; {plan.way_to_compare or 'better data, another recipe'}, or "
            "--force with a --reason"
        )
    if forced and not (reason and reason.strip()):
        raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")
    by, at = who(), rfc3339_now()
    plan.store.mkdir(parents=True, exist_ok=True)
    with locked(plan.store, by, at):
        sync_directory(plan.store.parent)
        current = read_pointer(plan.store)
        if current != plan.current:
            name = f"{current.name} ({current.digest[:12]}…)" if current else "nothing"
            raise BadInput(
                f"{plan.store}: {name} has become current meanwhile: publish again, to be "
                "compared with it"
            )
        sweep(plan.store)
        place_adapter(plan.source, plan.store, plan.manifest)
        record = make_record(
            plan.manifest,
            plan.evidence,
            plan.verdict,
            plan.rules,
            forced=forced,
            at=at,
            by=by,
            reason=reason,
            source=str(plan.source.resolve()),
        )
        write_record(plan.store, record, plan.evidence)
        entry = Entry(
            event="force" if forced else "publish",
            at=at,
            by=by,
            digest=plan.manifest.digest,
            name=plan.manifest.name,
            previous=current.digest if current else None,
            reason=reason,
        )
        if canary_share is None:
            pointer = move_pointer(plan.store, entry)
            canary = read_canary(plan.store)
            if canary is not None and canary.digest == pointer.digest:
                remove_canary(plan.store)
            return pointer
        assert current is not None
        put_on_trial(plan.store, replace(entry, event="canary", share=canary_share), forced=forced)
        return current


def move_pointer(store: Path, entry: Entry) -> Pointer:
    """Append an entry to the history, then point to its adapter. Call it with the lock held."""
    entry = append_entry(store, entry)
    way_back = path_to(read_history(store), entry.digest)
    pointer = pointer_for(entry, way_back[-2] if len(way_back) > 1 else None)
    write_pointer(store, pointer)
    return pointer


def who() -> str:
    """Name the user and the machine, as far as they have names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _adapter_in(source: Path) -> Path:
    if (source / MANIFEST_NAME).exists() or not (source / "adapter").is_dir():
        return source
    return source / "adapter"


def _serves(store: Path, current: Pointer, digest: str) -> bool:
    """Whether the adapter is current and sound: a damaged one is published again."""
    if current.digest != digest:
        return False
    try:
        load_stored(store, digest)
    except AdapterRefused:
        return False
    return True


def _compare_with_current(
    store: Path,
    current: Pointer | None,
    evidence: Evidence | None,
    current_evaluation: Path | None,
) -> Comparison | str | None:
    if current is None:
        return None
    if evidence is None:
        return "there is no evaluation to compare"
    if current_evaluation is not None:
        other = read_evidence(current_evaluation)
        if other.adapter_digest != current.digest:
            raise BadInput(
                f"{other.path}: evaluates {other.adapter_digest[:12]}… and current is "
                f"{current.digest[:12]}…"
            )
    else:
        try:
            stored = stored_evidence(store, current.digest)
        except BadInput as error:  # a damaged record must not lock the store up
            return str(error)
        if stored is None:
            return "it was published without an evaluation"
        other = stored
    return compare(evidence, other)
