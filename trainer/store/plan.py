"""Judging a publication: what is to be published, what the gate says of it, and nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.errors import BadInput
from trainer.store.comparison import compare_evidence
from trainer.store.evidence import Evidence, read_evidence
from trainer.store.files import is_sound
from trainer.store.gate import judge
from trainer.store.gate_rules import GateRules
from trainer.store.probes import PlannedProbes, ProbeChoice, plan_probes, standing_probes
from trainer.store.record import stored_evidence
from trainer.store.unseen import judge_unseen
from trainer.store.verdict import Comparison, GateVerdict
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, load_adapter, read_manifest
from worker.contract.manifest import stage_directory
from worker.contract.store import Pointer, read_pointer
from worker.contract.verify import load_stages


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of a cascade: its directory beside the cascade's, and its verified manifest."""

    directory: Path
    manifest: Manifest


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
    verdict: GateVerdict
    current: Pointer | None
    is_current: bool
    probes: PlannedProbes
    stages: tuple[PlannedStage, ...] = ()

    @property
    def way_to_compare(self) -> str | None:
        """How to make the comparison with the current adapter possible, where it is not."""
        if self.verdict.incomparable is None or self.evidence is None or self.current is None:
            return None
        dataset = self.evidence.evaluation.dataset.directory
        return (
            "to compare with the current adapter on the same hold-out: clerk-trainer evaluate "
            f"{self.store / self.current.digest} --dataset {dataset} --trained-on DIR --base DIR "
            "--out DIR, then publish with --current-evaluation DIR (or --allow-unpaired to go "
            "without)"
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
    probes: ProbeChoice | None = None,
) -> Plan:
    """Verify and judge an adapter, or a run that holds one as ``adapter``. Writes nothing.

    ``evaluation`` is a folder, by default the run's; ``current_evaluation`` one of the adapter
    that is current, for when the store's own is of another hold-out. Either way it must be of a
    hold-out that this adapter has not seen, or nothing is compared. ``allow_unjudged`` continues
    without an evaluation, to a verdict that fails. ``probes`` says whose messages workers try it
    on; by default what ``plan_probes`` says, or what a current one has. Raises AdapterRefused and
    BadInput.
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
            f"{folder}: holds no {EVALUATION.name}: run clerk-trainer evaluate, or name its "
            "folder with --evaluation"
        )
    # One that is damaged is published again, and one that is to have other probes.
    is_current = (
        current is not None
        and current.digest == manifest.digest
        and is_sound(store, manifest.digest)
    )
    if is_current and probes is None:
        planned = PlannedProbes("off", None)  # nothing is to be done: what is there stays
    else:
        standing = standing_probes(store, manifest)
        planned = plan_probes(adapter, manifest, folder, probes, standing)
        is_current = is_current and standing == planned.file
    against = _compare_with_current(store, current, evidence, current_evaluation)
    return Plan(
        source=adapter,
        store=store,
        manifest=manifest,
        rules=rules,
        evidence=evidence,
        verdict=judge(manifest, evidence, rules, against, allow_unpaired=allow_unpaired),
        current=current,
        is_current=is_current,
        probes=planned,
        stages=stages,
    )


def _adapter_in(source: Path) -> Path:
    if (source / MANIFEST_NAME).exists() or not (source / "adapter").is_dir():
        return source
    return source / "adapter"


def _plan_stages(adapter: Path, manifest: Manifest) -> tuple[PlannedStage, ...]:
    owns = load_stages(adapter, manifest) if manifest.stages else ()
    return tuple(
        PlannedStage(stage_directory(adapter, stage), own)
        for stage, own in zip(manifest.stages, owns, strict=True)
    )


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
        evaluated = other.evaluation.adapter.digest
        if evaluated != current.digest:
            raise BadInput(
                f"{other.path}: evaluates {evaluated[:12]}… and current is {current.digest[:12]}…"
            )
        if seen := _what_it_saw(store, current, other):
            raise BadInput(f"{other.path}: {seen}; or publish with --allow-unpaired")
    else:
        try:
            stored = stored_evidence(store, current.digest)
            seen = _what_it_saw(store, current, stored) if stored else None
        except BadInput as error:  # a damaged record must not lock the store up
            return str(error)
        if stored is None or seen:
            return seen or "it was published without an evaluation"
        other = stored
    return compare_evidence(evidence, other)


def _what_it_saw(store: Path, current: Pointer, evidence: Evidence) -> str | None:
    """Return why the current adapter's evaluation is no measure of it: the adapter may have been
    trained on these messages. None where they are shown to be unseen. Raises BadInput."""
    try:
        manifest = read_manifest(store / current.digest)
    except AdapterRefused as error:
        raise BadInput(f"{store}: the current adapter cannot be read: {error}") from error
    unseen = judge_unseen(manifest, evidence.evaluation)
    return None if unseen.passed else f"the current adapter's evaluation is of {unseen.found}"
