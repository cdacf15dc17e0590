"""Every move of a store's pointers: publish, put a canary beside, promote, end, roll back.

Each is made under the store's lock, with its line in the history written before the pointer moves.
Publishing puts everything else in its place first: adapter, predictions, record, card,
history, pointer.
The pointer alone makes an adapter current, so that a kill before it leaves the old one serving, and
the same command again completes.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.errors import BadInput, NotGoodEnough
from trainer.model_card import Sources, card_name, read_training, write_card
from trainer.store.files import (
    Entry,
    Event,
    append_entry,
    locked,
    path_to,
    place_adapter,
    pointer_for,
    read_history,
    remove_leftovers,
)
from trainer.store.plan import Plan
from trainer.store.probes import give_to_group, place_probes
from trainer.store.record import (
    make_gate_record,
    make_record,
    stored_digests,
    stored_evidence,
    write_record,
)
from worker.contract import MANIFEST_NAME, Manifest
from worker.contract.digest import sync_directory
from worker.contract.store import (
    CanaryPointer,
    Pointer,
    load_stored,
    read_canary,
    read_pointer,
    remove_canary,
    write_canary,
    write_pointer,
)
from worker.contract.timestamps import rfc3339_now


@dataclass(frozen=True, slots=True)
class _Signature:
    """Who moves, and when: what the lock, the history and the record say alike."""

    by: str
    at: str

    def entry(
        self,
        event: Event,
        adapter: Manifest | CanaryPointer,
        current: Pointer | None,
        reason: str | None,
    ) -> Entry:
        """Return the history's line for a move of ``adapter`` while ``current`` is current."""
        return Entry(
            event=event,
            at=self.at,
            by=self.by,
            digest=adapter.digest,
            name=adapter.name,
            previous=current.digest if current else None,
            reason=reason,
        )


@contextmanager
def _moving(store: Path) -> Iterator[_Signature]:
    """Hold the store's lock and tell who does. Raises BadInput where another one holds it."""
    signature = _Signature(_who(), rfc3339_now())
    with locked(store, signature.by, signature.at):
        yield signature


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
    with _moving(plan.store) as signature:
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
        pointer = _point_current(plan.store, entry)
        canary = read_canary(plan.store)
        if canary is not None and canary.digest == pointer.digest:
            remove_canary(plan.store)
        return pointer


def promote_canary(store: Path, *, reason: str | None = None) -> tuple[Pointer, Pointer]:
    """Make the canary current, for every key; return the pointers before and after.

    ``current`` is moved first and the canary's pointer removed then: between the two, and after a
    kill between them, workers serve the same adapter in both roles. The adapter is verified first.
    Raises BadInput and AdapterRefused.
    """
    _require_canary(store)
    with _moving(store) as signature:
        canary, before = _require_canary(store), read_pointer(store)
        if before is None:
            raise BadInput(f"{store}: nothing is current there")
        if before.digest == canary.digest:  # killed between the two
            remove_canary(store)
            return before, before
        load_stored(store, canary.digest)
        remove_leftovers(store)
        after = _point_current(store, signature.entry("promote", canary, before, reason))
        remove_canary(store)
        return before, after


def end_canary(store: Path, *, reason: str) -> CanaryPointer:
    """End the canary; the current adapter serves every key again. Raises BadInput."""
    _require_reason(reason)
    with _moving(store) as signature:
        canary, current = _require_canary(store), read_pointer(store)
        append_entry(store, signature.entry("end_canary", canary, current, reason))
        remove_canary(store)
        return canary


def roll_back(store: Path, *, to: str | None = None, reason: str) -> tuple[Pointer, Pointer]:
    """Make the previous adapter current again, or the one whose digest begins with ``to``.

    Return the pointers before and after; they are equal when ``to`` is current already. The
    adapter is verified first. Raises BadInput and AdapterRefused; the pointer is then as it was.
    """
    _require_reason(reason)
    before = read_pointer(store)
    if before is None:
        raise BadInput(f"{store}: nothing is current there: no store, or nothing published yet")
    with _moving(store) as signature:
        before = read_pointer(store) or before
        target = _find(store, to) if to else _previous(store, before)
        if target == before.digest:
            return before, before
        manifest = load_stored(store, target)
        remove_leftovers(store)
        entry = signature.entry("rollback", manifest, before, reason)
        return before, _point_current(store, entry)


def _refuse(plan: Plan, *, forced: bool, force: bool, reason: str | None) -> None:
    if forced and not force:
        raise NotGoodEnough(
            f"{plan.manifest.name} does not pass the gate ({', '.join(plan.verdict.failed)}): "
            f"nothing was published; {plan.way_to_compare or 'better data, another recipe'}, or "
            "--force with a --reason"
        )
    if forced and not (reason and reason.strip()):
        raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")


def _place(plan: Plan, signature: _Signature, *, forced: bool, reason: str | None) -> None:
    """Put the adapter and its record in the store. Nothing points to them yet."""
    remove_leftovers(plan.store)
    for stage in plan.stages:  # before what binds them
        place_adapter(stage.directory, plan.store, stage.manifest)
    private = plan.probes.in_manifest > 0
    directory = place_adapter(plan.source, plan.store, plan.manifest, private=private)
    if private:
        give_to_group(directory / MANIFEST_NAME, plan.store)
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


def _point_current(store: Path, entry: Entry) -> Pointer:
    """Append an entry to the history, then point to its adapter. Call it with the lock held."""
    entry = append_entry(store, entry)
    way_back = path_to(read_history(store), entry.digest)
    pointer = pointer_for(entry, way_back[-2] if len(way_back) > 1 else None)
    write_pointer(store, pointer)
    return pointer


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


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise BadInput("--reason: say why; it is recorded in the store's history")


def _require_canary(store: Path) -> CanaryPointer:
    canary = read_canary(store)
    if canary is None:
        raise BadInput(f"{store}: there is no canary: clerk-trainer publish --canary SHARE")
    return canary


def _find(store: Path, prefix: str) -> str:
    known = stored_digests(store)
    found = [digest for digest in known if digest.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(digest[:12] for digest in (found or known))
    problem = "names no adapter; there are" if not found else "names several:"
    raise BadInput(f"{store}: --to {prefix} {problem} {listed}")


def _previous(store: Path, current: Pointer) -> str:
    path = path_to(read_history(store), current.digest)
    previous = path[-2] if len(path) > 1 else current.previous
    if previous is None:
        raise BadInput(
            f"{store}: there is nothing before {current.name} ({current.digest[:12]}…): name an "
            "adapter with --to (clerk-trainer list shows them)"
        )
    return previous


def _who() -> str:
    """Name the user and the machine, as far as they have names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
