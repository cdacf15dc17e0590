"""Publish an adapter: plan and judge it, then write it to the store.

Planning writes nothing. Publishing writes in this order, the pointer last: stages, adapter, probes,
predictions, record, card, history, pointer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.commands import command
from trainer.errors import BadInput, NotGoodEnough
from trainer.model_card import Sources, card_name, read_training, write_card
from trainer.store.gate import compare_evidence, is_better, judge, judge_unseen
from trainer.store.moves import (
    Entry,
    Signature,
    append_entry,
    is_sound,
    moving,
    place_adapter,
    point_current,
    remove_leftovers,
)
from trainer.store.record import (
    Evidence,
    PlannedProbes,
    ProbeChoice,
    find_anchor,
    make_gate_record,
    make_record,
    place_probes,
    plan_probes,
    read_evidence,
    stored_evidence,
    stored_probes,
    write_record,
)
from trainer.store.rules import Comparison, GateRules, GateVerdict
from worker.common.signatures import BadKey, read_private_key, sign, signature_path
from worker.common.version import __version__
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter, read_manifest
from worker.contract.digest import sync_directory, write_atomically
from worker.contract.manifest import stage_directory
from worker.contract.store import (
    CanaryPointer,
    Pointer,
    read_canary,
    read_pointer,
    remove_canary,
    write_canary,
)
from worker.contract.verify import load_stages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Plan:
    """A judged publication. ``current`` is the pointer it was judged against; ``is_current`` means
    that there is nothing to do. ``anchor`` is the digest of the anchor of the current adapter's
    series, ``missing`` are those of the two that cannot be compared. ``stages`` are a cascade's:
    directories and verified manifests."""

    source: Path
    store: Path
    manifest: Manifest
    rules: GateRules
    evidence: Evidence | None
    verdict: GateVerdict
    current: Pointer | None
    is_current: bool
    probes: PlannedProbes
    anchor: str | None = None
    missing: tuple[str, ...] = ()
    stages: tuple[tuple[Path, Manifest], ...] = ()

    @property
    def way_to_compare(self) -> str | None:
        """How to make impossible comparisons with earlier adapters possible, or None."""
        if not self.missing or self.evidence is None:
            return None
        data = ("--dataset", self.evidence.evaluation.dataset.directory)
        measure = [
            command("evaluate", self.store / each, *data, "--trained-on", "DIR", "--out", "DIR")
            for each in self.missing
        ]
        return (
            f"to compare on the same hold-out: {'; '.join(measure)}; then publish with "
            "--current-evaluation DIR for each (or --allow-unpaired to go without, which begins a "
            "new series)"
        )

    @property
    def next_anchor(self) -> str | None:
        """The anchor of the series once this is published; None if it is this adapter."""
        compared = self.verdict.comparison
        if self.is_current:
            return self.anchor
        # What a person decided against the comparison begins a new series.
        if not self.verdict.passed or self.missing or not compared or not compared.same_promise:
            return None
        return None if is_better(self.verdict.anchor or compared) else self.anchor


def plan_publication(
    source: Path,
    store: Path,
    *,
    evaluation: Path | None = None,
    earlier: Sequence[Path] = (),
    rules: GateRules | None = None,
    allow_unpaired: bool = False,
    accept_promise: float | None = None,
    allow_unjudged: bool = False,
    probes: ProbeChoice | None = None,
) -> Plan:
    """Verify and judge an adapter, or the one in a run's folder. Writes nothing.

    ``evaluation`` is a folder, by default the run's. ``earlier`` are folders with evaluations of
    the current adapter and of its series' anchor, if the store's are of another hold-out; it must
    be one that they have not seen. Those in the run's folder ``EARLIER`` are found.
    ``accept_promise`` is the precision that the adapter may promise though the current one promises
    another. ``allow_unjudged`` continues without an evaluation, to a verdict that fails. ``probes``
    chooses the messages on which workers try the adapter: see ``plan_probes``. Raises
    AdapterRefused and BadInput.
    """
    rules = rules or GateRules()
    adapter = _adapter_in(source)
    manifest = load_adapter(adapter)
    stages = _plan_stages(adapter, manifest)
    current = read_pointer(store)
    folder = evaluation or source / EVALUATION_FOLDER
    evidence = None
    if evaluation or (folder / EVALUATION.name).exists():
        evidence = read_evidence(folder)
    elif not allow_unjudged and not (current and current.digest == manifest.digest):
        raise BadInput(
            f"{folder}: has no {EVALUATION.name}: run clerk-trainer evaluate, or name its folder "
            "with --evaluation"
        )
    # A damaged adapter is published again, and so is one that gets other probes.
    is_current = (
        current is not None
        and current.digest == manifest.digest
        and is_sound(store, manifest.digest)
    )
    if is_current and probes is None:
        planned = PlannedProbes("off", None)  # not used: the stored probes stay
    else:
        stored = stored_probes(store, manifest)
        planned = plan_probes(adapter, manifest, folder, probes, stored)
        is_current = is_current and stored == planned.file
    anchor = current.digest if current else None
    with suppress(BadInput):  # a damaged record must not block every further publication
        anchor = find_anchor(store, current.digest) if current else None
    wanted = {current.digest, anchor} if current else set()
    given = _find_earlier(source, wanted) | _read_earlier(store, earlier, wanted)
    compared: dict[str, Comparison | str] = {}
    if current is not None and anchor is not None:
        turn = _count_turn(store, current.digest, anchor, evidence) if evidence else 1
        for digest in (current.digest, anchor):
            if digest not in compared:
                of_turn = turn if digest == current.digest else None
                compared[digest] = _compare(store, digest, evidence, given.get(digest), of_turn)
    first = None
    with suppress(BadInput):
        first = stored_evidence(store, anchor) if anchor else None
    verdict = judge(
        manifest,
        evidence,
        rules,
        compared.get(current.digest) if current else None,
        compared.get(str(anchor)) if current and anchor != current.digest else None,
        steered=first.evaluation.steering if first else None,
        allow_unpaired=allow_unpaired,
        accept_promise=accept_promise,
    )
    return Plan(
        source=adapter,
        store=store,
        manifest=manifest,
        rules=rules,
        evidence=evidence,
        verdict=verdict,
        current=current,
        is_current=is_current,
        probes=planned,
        anchor=anchor,
        missing=tuple(digest for digest, found in compared.items() if isinstance(found, str)),
        stages=stages,
    )


def _adapter_in(source: Path) -> Path:
    if (source / MANIFEST_NAME).exists() or not (source / "adapter").is_dir():
        return source
    return source / "adapter"


def _plan_stages(adapter: Path, manifest: Manifest) -> tuple[tuple[Path, Manifest], ...]:
    if not manifest.stages:
        return ()
    directories = (stage_directory(adapter, stage) for stage in manifest.stages)
    return tuple(zip(directories, load_stages(adapter, manifest), strict=True))


EARLIER = "earlier"
"""Where ``start --after`` puts evaluations of earlier adapters, in the run's folder."""


def _find_earlier(source: Path, wanted: Collection[str | None]) -> dict[str, Evidence]:
    """Return the run's own evaluations of the wanted adapters by digest. Raises BadInput."""
    found = {}
    for run in (source, *source.parents[:2]):  # a baseline is in a folder of its run's
        for path in sorted(run.glob(f"{EARLIER}/*/{EVALUATION.name}")):
            evidence = read_evidence(path.parent)
            if evidence.evaluation.adapter.digest in wanted:
                found[evidence.evaluation.adapter.digest] = evidence
    return found


def _read_earlier(
    store: Path, folders: Sequence[Path], wanted: Collection[str | None]
) -> dict[str, Evidence]:
    """Return the evaluations of earlier adapters in these folders by digest. Raises BadInput."""
    found = {}
    for folder in folders:
        evidence = read_evidence(folder)
        digest = evidence.evaluation.adapter.digest
        if digest not in wanted:
            names = ", ".join(sorted({f"{each[:12]}…" for each in wanted if each}))
            raise BadInput(
                f"{evidence.path}: evaluates {digest[:12]}…, but the current adapter and the first "
                f"of its series are {names or 'none'}: evaluate those"
            )
        if seen := _what_it_saw(store, digest, evidence):
            raise BadInput(f"{evidence.path}: {seen}; or publish with --allow-unpaired")
        found[digest] = evidence
    return found


def _compare(
    store: Path,
    digest: str,
    evidence: Evidence | None,
    given: Evidence | None,
    turn: int | None,
) -> Comparison | str:
    """Compare with a stored adapter, or return the reason why that is impossible."""
    if evidence is None:
        return "there is no evaluation to compare"
    try:
        given = given or stored_evidence(store, digest)
        seen = _what_it_saw(store, digest, given) if given else None
    except BadInput as error:  # a damaged record must not block every further publication
        return str(error)
    if given is None or seen:
        return seen or "it was published without an evaluation"
    return compare_evidence(evidence, given, turn)


def _count_turn(store: Path, current: str, anchor: str, evidence: Evidence) -> int:
    """Return how many adapters were tried on the hold-out since the current one was published."""
    known = {current, anchor, evidence.evaluation.adapter.digest}
    dataset = evidence.evaluation.dataset
    with suppress(BadInput):  # a damaged record must not block every further publication
        published = stored_evidence(store, current)
        # Those tried before it was chosen count no more, if it was chosen by the same hold-out.
        if published and published.evaluation.dataset.holdout_sha256 == dataset.holdout_sha256:
            known |= set(published.evaluation.dataset.tried)
    return len(set(dataset.tried) - known) + 1


def _what_it_saw(store: Path, digest: str, evidence: Evidence) -> str | None:
    """Return the reason why a stored adapter may have been trained on the messages of its
    evaluation; None if they are shown to be unseen. Raises BadInput."""
    try:
        manifest = read_manifest(store / digest)
    except AdapterRefused as error:
        raise BadInput(f"{store}: {digest[:12]}… cannot be read: {error}") from error
    unseen = judge_unseen(manifest, evidence.evaluation)
    return None if unseen.passed else f"the evaluation of {digest[:12]}… is of {unseen.found}"


def publish_adapter(
    plan: Plan,
    *,
    force: bool = False,
    reason: str | None = None,
    canary_share: float | None = None,
    sign_key: Path | None = None,
) -> Pointer:
    """Publish the plan and return the pointer to the current adapter.

    With ``canary_share`` the adapter becomes a canary for that share of the keys, and the pointer
    does not move. ``force`` publishes the current adapter again, so that workers that rejected it
    as worse load it. ``sign_key`` is a file with a private key that signs the adapter with its
    dataset, code and verdict (worker.common.signatures). Raises NotGoodEnough if the gate refused
    it and it is not forced, BadInput if another publication came in between or holds the lock or
    the key cannot be used, AdapterRefused, ProofFailed and OSError; none of them moves the pointer.
    """
    if plan.is_current and (not force or canary_share is not None):
        assert plan.current is not None
        return plan.current
    if canary_share is not None and plan.current is None:
        raise BadInput(f"{plan.store}: no adapter is current: publish without --canary first")
    forced = not plan.verdict.passed or plan.is_current
    _refuse(plan, forced=forced, force=force, reason=reason)
    key = _key(sign_key) if sign_key else None
    plan.store.mkdir(parents=True, exist_ok=True)
    with moving(plan.store) as signature:
        # The store's folder may be new, and its name must survive a power failure too.
        sync_directory(plan.store.parent)
        current = read_pointer(plan.store)
        if current != plan.current:
            name = f"{current.name} ({current.digest[:12]}…)" if current else "nothing"
            raise BadInput(
                f"{plan.store}: {name} has become current in the meantime: publish again, to "
                "compare with it"
            )
        _place(plan, signature, forced=forced, reason=reason)
        if key is not None:
            _sign(plan, signature, key, forced=forced)
        entry = signature.entry("force" if forced else "publish", plan.manifest, current, reason)
        if canary_share is not None:
            assert current is not None
            entry = replace(entry, event="canary", share=canary_share)
            _point_canary(plan.store, entry, forced=forced)
            return current
        pointer = point_current(plan.store, entry)
        canary = read_canary(plan.store)
        # The canary was published while it was on trial: it serves every key now.
        if canary is not None and canary.digest == pointer.digest:
            remove_canary(plan.store)
        return pointer


def _refuse(plan: Plan, *, forced: bool, force: bool, reason: str | None) -> None:
    if forced and not force and plan.verdict.undecided:
        raise NotGoodEnough(
            f"{plan.manifest.name} cannot be judged: too few held-out messages for "
            f"{', '.join(plan.verdict.failed)}: nothing was published; hold out as many as the "
            "rows say, or --force with a --reason"
        )
    if forced and not force:
        raise NotGoodEnough(
            f"{plan.manifest.name} does not pass the gate ({', '.join(plan.verdict.failed)}): "
            f"nothing was published; {plan.way_to_compare or 'better data, another recipe'}, or "
            "--force with a --reason"
        )
    if forced and not (reason and reason.strip()):
        raise BadInput("--force needs --reason TEXT: it is recorded with the adapter")


def _place(plan: Plan, signature: Signature, *, forced: bool, reason: str | None) -> None:
    """Write the adapter and its record to the store. No pointer leads to them yet."""
    remove_leftovers(plan.store)
    for directory, manifest in plan.stages:  # before the cascade, which refers to them
        place_adapter(directory, plan.store, manifest)
    place_adapter(plan.source, plan.store, plan.manifest)
    place_probes(plan.store, plan.manifest.digest, plan.probes)
    record = make_record(
        plan.manifest,
        plan.evidence,
        make_gate_record(plan.verdict, plan.rules, forced=forced),
        anchor=plan.next_anchor,
        at=signature.at,
        by=signature.by,
        reason=reason,
        source=str(plan.source.resolve()),
        probes=plan.probes,
    )
    write_record(plan.store, record, plan.evidence)
    _write_card(plan, reason)


def _key(path: Path) -> Ed25519PrivateKey:
    try:
        return read_private_key(path)
    except BadKey as error:
        raise BadInput(f"--sign-key {error}: nothing was published") from error


def _sign(plan: Plan, signature: Signature, key: Ed25519PrivateKey, *, forced: bool) -> None:
    training = read_training(plan.source.parent, plan.manifest)
    statement = {
        "digest": plan.manifest.digest,
        "name": plan.manifest.name,
        "dataset": training.dataset.digest if training else None,
        "code": __version__,
        "gate": "forced" if forced else "passed",
        "by": signature.by,
        "at": signature.at,
    }
    path = signature_path(plan.store / plan.manifest.digest)
    write_atomically(path, sign(statement, key))


def _write_card(plan: Plan, reason: str | None) -> None:
    """Write the adapter's card next to it, with the stored figures."""
    # Not in the adapter's folder: workers refuse a folder with a file that the manifest does not
    # name.
    kept = stored_evidence(plan.store, plan.manifest.digest)
    sources = Sources(
        plan.manifest,
        read_training(plan.source.parent, plan.manifest),
        kept.evaluation if kept else None,
        reason,
    )
    write_card(plan.store / card_name(plan.manifest.digest), sources)


def _point_canary(store: Path, entry: Entry, *, forced: bool) -> None:
    """Append an entry to the history, then point the canary to its adapter. Call it with the lock
    held."""
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
