"""Write a run's adapter directory (weights, PEFT's config, the manifest last), and its record."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import __version__
from trainer.artifacts.training import (
    TRAINING,
    VALIDATION_SCORES,
    AdapterName,
    DatasetName,
    TrainingRecord,
)
from trainer.check.duplicates import number_groups
from trainer.dataset.folder import Dataset
from trainer.dataset.split import first_of_each
from trainer.errors import ProofFailed
from trainer.model.device import describe_machine, library_versions, peak_memory
from trainer.model.lora_model import read_weights, write_weights
from trainer.statistics.calibration import (
    Bools,
    Floats,
    Ints,
    energy,
    off_label_mass,
    temperature_softmax,
)
from trainer.training.inputs import Inputs
from trainer.training.parts import Result, Training
from trainer.training.recipe import Recipe
from trainer.training.run_folder import ADAPTER, DRAFT
from worker.contract import (
    BaseModel,
    Calibration,
    Code,
    Decision,
    Encoders,
    FileDigest,
    GoldenPrompt,
    Head,
    Lora,
    Manifest,
    Probe,
    Reference,
    Thresholds,
    load_adapter,
    review_reasons,
    verify_tokens,
    write_manifest,
)
from worker.contract.digest import sha256_json
from worker.contract.timestamps import rfc3339_now
from worker.contract.verify import ProbeFile, attach_probes, probes_path, write_probes

_CONFIDENCE = (0.01, 0.05, 0.1, 0.25, 0.5)
_OFF_LABEL_MASS = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a manifest that depend on the kind of model.

    ``agreed``, (validation messages), says which messages get the same label from every file that
    may serve the adapter. ``metrics`` are figures of this kind only, ``data`` says more about
    where the weights come from.
    """

    files: Mapping[str, FileDigest]
    golden: tuple[GoldenPrompt, ...]
    lora: Lora | None = None
    head: Head | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    agreed: Bools | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def write_lora(
    training: Training, result: Result, config: Mapping[str, Any]
) -> dict[str, FileDigest]:
    """Write a result's weights and PEFT's ``config`` into the run's draft and return the files'
    digests. Raises ProofFailed if the weights read back score validation differently."""
    draft = training.recipe.run / DRAFT
    files = write_weights(draft, result.weights, config, training.recipe.adapter_dtype)
    verify_read_back(training, result, read_weights)
    return files


def verify_read_back(
    training: Training, result: Result, read: Callable[[Path], dict[str, Tensor]]
) -> None:
    """Raise ProofFailed if the weights that ``read`` loads from the run's draft score validation
    differently than measured."""
    draft = training.recipe.run / DRAFT
    model = training.model
    # Zeros first: a weight that PEFT does not load would otherwise still be the trained one, and
    # the check would pass.
    model.load_state_dict({name: torch.zeros_like(w) for name, w in result.weights.items()})
    model.load_state_dict(read(draft))
    if not np.array_equal(training.validator.score(), result.logprobs):
        raise ProofFailed(f"{draft}: the weights read back score the messages differently")


def write_rest(
    recipe: Recipe,
    inputs: Inputs,
    result: Result,
    parts: Parts,
    *,
    name: str,
    base: BaseModel,
    outcome: Mapping[str, Any],
) -> Manifest:
    """Write the manifest of the run's draft, move it into place, and write its probes next to it.
    ``outcome`` are the manifest's figures of the training itself. Raises AdapterRefused."""
    calibrated = result.calibrated
    probes = choose_probes(
        inputs.dataset,
        result.served_scores,
        result.truth,
        calibrated.calibration,
        calibrated.thresholds,
        probes_per_label=recipe.probes_per_label,
        seed=recipe.seed,
        label_of=result.label_of,
        agreed=parts.agreed,
    )
    reference = make_reference(
        inputs.dataset, result.unseen_scores, calibrated.calibration, result.label_of
    )
    if parts.head is not None and parts.head.out_of_scope != "energy":
        reference = replace(reference, out_of_scope={})
    metrics = {"validation": result.validation_figures().to_json(), "training": outcome}
    manifest = Manifest(
        name=name,
        created_at=rfc3339_now(),
        kind=recipe.kind,
        base=base,
        taxonomy=inputs.dataset.taxonomy,
        prompt=inputs.spec,
        decoding="code" if parts.codes else None,
        codes=parts.codes,
        lora=parts.lora,
        head=parts.head,
        calibration=calibrated.calibration,
        thresholds=calibrated.thresholds,
        golden=parts.golden,
        files=parts.files,
        reference=reference,
        data=inputs.to_record() | {"recipe": recipe.to_record()} | dict(parts.data),
        metrics={**metrics, **parts.metrics},
        versions=versions() | dict(parts.versions),
    )
    return finish_adapter(recipe.run, manifest, probes, inputs.tokenizer.encoders)


def write_record(
    run: Path,
    inputs: Inputs,
    result: Result,
    manifest: Manifest,
    *,
    device: torch.device,
    started: float,
    **more: Any,
) -> TrainingRecord:
    """Write the validation scores, and last the record; return the record. ``started`` is the
    beginning (time.monotonic), ``more`` are the fields that only a training or an import knows."""
    # The adapter first and the record last: a run without a record is unfinished and is resumed.
    validation = inputs.dataset.validation
    groups = number_groups(inputs.dataset, validation)
    VALIDATION_SCORES.write(run, result.scored_examples(validation, groups))
    record = TrainingRecord(
        name=manifest.name,
        created_at=manifest.created_at,
        adapter=AdapterName(name=manifest.name, digest=manifest.digest),
        dataset=DatasetName(
            name=inputs.dataset.name,
            digest=inputs.dataset.digest,
            directory=str(inputs.dataset.directory),
            languages=inputs.dataset.languages,
        ),
        machine=describe_machine(str(device), torch.get_num_threads()),
        validation=result.validation_figures(),
        calibration=result.calibration_figures(),
        peak_memory_bytes=peak_memory(device),
        seconds=round(time.monotonic() - started, 1),
        versions=versions(),
        **more,
    )
    TRAINING.write(run, record)
    return record


def finish_adapter(
    run: Path, manifest: Manifest, probes: tuple[Probe, ...], encoders: Encoders
) -> Manifest:
    """Write the manifest of the run's draft and verify the whole directory as a worker does before
    it moves into place. Return the manifest as read back. Raises AdapterRefused."""
    draft, target = run / DRAFT, run / ADAPTER
    write_manifest(draft, manifest)
    made = load_adapter(draft)
    # In the draft, so that an adapter that workers would refuse never gets its final name.
    verify_tokens(made, encoders, Path("tokenizer.json"))
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    path = probes_path(target)
    # Next to the adapter and not in it: any worker may read an adapter, and probes are messages of
    # customers. The digest does not cover them.
    path.unlink(missing_ok=True)
    if probes:
        write_probes(path, ProbeFile(made.digest, "validation", probes))
    return attach_probes(made, target)


def versions() -> dict[str, str]:
    """Return the versions of the programs and libraries that make an adapter."""
    return {
        "python": platform.python_version(),
        "trainer": __version__,
        **library_versions(),
    }


def make_reference(
    dataset: Dataset, logprobs: Floats, calibration: Calibration, label_of: Ints | None = None
) -> Reference:
    """Return the reference for monitoring in service: label shares, and quantiles over validation.

    ``logprobs``, (messages, outputs), is of ``dataset.validation``. With ``label_of``, the labels
    of a head's outputs, their energy replaces off-label mass.
    """
    confidence = temperature_softmax(logprobs, calibration.temperature, label_of).max(axis=1)
    strange = off_label_mass(logprobs) if label_of is None else energy(logprobs)
    return Reference(
        label_shares=_label_shares(dataset),
        confidence=_quantiles(confidence, _CONFIDENCE),
        off_label_mass=_quantiles(strange, _OFF_LABEL_MASS) if label_of is None else {},
        out_of_scope=_quantiles(strange, _OFF_LABEL_MASS) if label_of is not None else {},
    )


def choose_probes(
    dataset: Dataset,
    logprobs: Floats,
    truth: Ints,
    calibration: Calibration,
    thresholds: Thresholds,
    *,
    probes_per_label: int,
    seed: int,
    label_of: Ints | None = None,
    agreed: Bools | None = None,
) -> tuple[Probe, ...]:
    """Choose at most ``probes_per_label`` validation messages of each label as probes.

    ``logprobs``, (messages, outputs), and ``truth`` are of ``dataset.validation``. A probe is
    classified correctly and would not go to review, so a machine that rounds differently gives it
    the same label. ``agreed``, (messages), excludes messages on which two precisions of the model
    disagree. ``label_of`` gives the labels of a head's outputs.
    """
    probabilities = temperature_softmax(logprobs, calibration.temperature, label_of)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    if agreed is not None:
        correct &= agreed
    strange = off_label_mass(logprobs) if label_of is None else energy(logprobs)
    rows = zip(dataset.validation, correct, confidence, strange, strict=True)
    candidates = [
        example
        for example, is_correct, sure, score in rows
        if is_correct
        and not review_reasons(
            Decision(example.label, float(sure), {}, float(score))
            if label_of is None
            else Decision(example.label, float(sure), {}, None, float(score)),
            thresholds,
        )
    ]
    places = [sha256_json([seed, example.id]) for example in candidates]
    labels = [example.label for example in candidates]
    chosen = first_of_each(labels, places, probes_per_label)
    return tuple(Probe(candidates[at].message, candidates[at].label) for at in chosen)


def _label_shares(dataset: Dataset) -> dict[str, float]:
    files = dataset.record["files"].values()
    # Rows cut by a limit per label are counted: traffic will have them.
    surplus = dataset.record.get("counts", {}).get("surplus", {})
    counts = {
        name: sum(file["per_label"][name] for file in files) + surplus.get(name, 0)
        for name in dataset.taxonomy.names
    }
    total = sum(counts.values())
    return {name: round(count / total, 6) for name, count in counts.items()}


def _quantiles(values: Floats, probabilities: tuple[float, ...]) -> dict[str, float]:
    quantiles = np.quantile(values, probabilities)
    return {
        f"{probability:g}": round(float(value), 6)
        for probability, value in zip(probabilities, quantiles, strict=True)
    }
