"""Publishing: an adapter and all that a store keeps of it, and then the pointer.

Everything else is put in its place first: adapter, predictions, record, card, history, pointer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.errors import BadInput, NotGoodEnough
from trainer.model_card import Sources, card_name, read_training, write_card
from trainer.store.files import place_adapter, remove_leftovers
from trainer.store.history import Entry, append_entry
from trainer.store.moves import Signature, moving, point_current
from trainer.store.plan import Plan
from trainer.store.probes import place_probes
from trainer.store.record import make_gate_record, make_record, stored_evidence, write_record
from worker.contract.digest import sync_directory
from worker.contract.store import (
    CanaryPointer,
    Pointer,
    read_canary,
    read_pointer,
    remove_canary,
    write_canary,
)


def publish_adapter(
    plan: Plan,
    *,
    force: bool = False,
    reason: str | None = None,
    canary_share: float | None = None,
) -> Pointer:
    """Publish what was planned and return the pointer that stands.

    With ``canary_share`` the adapter becomes a canary for that share of the keys, and the pointer
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
    _refuse(plan, forced=forced, force=force, reason=reason)
    plan.store.mkdir(parents=True, exist_ok=True)
    with moving(plan.store) as signature:
        sync_directory(plan.store.parent)
        current = read_pointer(plan.store)
        if current != plan.current:
            name = f"{current.name} ({current.digest[:12]}…)" if current else "nothing"
            raise BadInput(
                f"{plan.store}: {name} has become current meanwhile: publish again, to be "
                "compared with it"
            )
        _place(plan, signature, forced=forced, reason=reason)
        entry = signature.entry("force" if forced else "publish", plan.manifest, current, reason)
        if canary_share is not None:
            assert current is not None
            entry = replace(entry, event="canary", share=canary_share)
            _point_canary(plan.store, entry, forced=forced)
            return current
        pointer = point_current(plan.store, entry)
        canary = read_canary(plan.store)
        if canary is not None and canary.digest == pointer.digest:
            remove_canary(plan.store)
        return pointer


def _refuse(plan: Plan, *, forced: bool, force: bool, reason: str | None) -> None:
    if forced and not force:
        raise NotGoodEnough(
            f"{plan.manifest.name} does not pass the gate ({', '.join(plan.verdict.failed)}): "
            f"nothing was published; {plan.way_to_compare or 'better data, another recipe'}, or "
            "--force with a --reason"
        )
    if forced and not (reason and reason.strip()):
        raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")


def _place(plan: Plan, signature: Signature, *, forced: bool, reason: str | None) -> None:
    """Put the adapter and its record in the store. Nothing points to them yet."""
    remove_leftovers(plan.store)
    for stage in plan.stages:  # before what binds them
        place_adapter(stage.directory, plan.store, stage.manifest)
    place_adapter(plan.source, plan.store, plan.manifest)
    place_probes(plan.store, plan.manifest.digest, plan.probes)
    record = make_record(
        plan.manifest,
        plan.evidence,
        make_gate_record(plan.verdict, plan.rules, forced=forced),
        at=signature.at,
        by=signature.by,
        reason=reason,
        source=str(plan.source.resolve()),
        probes=plan.probes,
    )
    write_record(plan.store, record, plan.evidence)
    _write_card(plan, reason)


def _write_card(plan: Plan, reason: str | None) -> None:
    """Write the adapter's card beside it, with the figures that the store keeps of it."""
    kept = stored_evidence(plan.store, plan.manifest.digest)
    sources = Sources(
        plan.manifest,
        read_training(plan.source.parent, plan.manifest),
        kept.evaluation if kept else None,
        reason,
    )
    write_card(plan.store / card_name(plan.manifest.digest), sources)


def _point_canary(store: Path, entry: Entry, *, forced: bool) -> None:
    """Append an entry to the history, then have workers serve its adapter to its share of the
    keys. Call it with the lock held."""
    entry = append_entry(store, entry)
    assert entry.share is not None
    canary = CanaryPointer(
        digest=entry.digest,
        name=entry.name,
        share=entry.share,
        since=entry.at,
        by=entry.by,
        reason=entry.reason,
        forced=forced,
    )
    write_canary(store, canary)
