"""The evaluation of an encoder has the figures, files and checks of any adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trainer_world import call
from trainer.artifacts.evaluation import EVALUATION, VALIDATION
from trainer.dataset.folder import Dataset
from trainer.errors import ProofFailed
from trainer.evaluation.predictions import logprobs_of, outputs_of
from trainer.evaluation.summary import verify_evaluation
from trainer.model.onnx_files import open_onnx
from trainer.model.prompt import load_tokenizer
from trainer.statistics.calibration import energy
from worker.contract import Manifest, build_prompt, load_adapter
from worker.contract.scoring import out_of_scope_score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluated(
    encoder_run: Path, sealed: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("evaluated")
    outside = folder / "odd.jsonl"
    outside.write_text(
        "".join(json.dumps({"message": f"odd {at} zebra"}) + "\n" for at in range(5)),
        encoding="utf-8",
    )
    written = folder / "written.jsonl"
    written.write_text(
        "".join(
            json.dumps({"message": f"my {word}", "label": "refund"}) + "\n"
            for word in ("refund please", "money back")
        ),
        encoding="utf-8",
    )
    code, record, error = call(
        *("evaluate", encoder_run / "adapter", "--dataset", sealed.directory, "--no-steering"),
        *("--out", folder / "evaluation", "--out-of-scope", outside, "--probes", written),
        "--json",
    )
    assert code == 0, error
    return folder / "evaluation", record


def test_one_that_was_trained_whole_is_measured_without_a_base(
    evaluated: tuple[Path, dict[str, Any]],
) -> None:
    folder, record = evaluated
    assert verify_evaluation(folder) == EVALUATION.read(folder)
    assert record["accuracy"] > 0.5
    assert record["outside_labels"] == {
        "constrained": 0,
        "unconstrained": 0,
        "unconstrained_share": 0.0,
    }
    assert record["off_label_mass"] is None
    assert record["head"]["out_of_scope"] == "energy"
    assert len(record["head"]["outputs"]) == 6
    assert 0 <= record["out_of_scope"]["auroc_out_of_scope"] <= 1
    assert record["out_of_scope"]["auroc_off_label_mass"] is None
    assert (folder / "probes.json").exists()


def test_it_is_scored_by_the_file_that_a_worker_takes(
    evaluated: tuple[Path, dict[str, Any]], encoder_run: Path, sealed: Dataset
) -> None:
    """One message at a time, with 8-bit weights if those come first."""
    adapter = encoder_run / "adapter"
    manifest = load_adapter(adapter)
    assert manifest.head is not None
    first, _ = manifest.head.onnx
    served = open_onnx(adapter, manifest)
    assert served is not None
    assert served.path.name == first.file
    encoders = load_tokenizer(adapter).encoders
    prompts = []
    for example in sealed.validation:
        prompt = build_prompt(manifest.prompt, example.message, encoders.plain)
        assert prompt is not None
        prompts.append(prompt.ids)
    wanted = {
        example.id: row
        for example, row in zip(sealed.validation, served.score(prompts).logprobs, strict=True)
    }
    recorded = logprobs_of(VALIDATION.read(evaluated[0]), outputs_of(manifest))
    ids = [prediction.id for prediction in VALIDATION.read(evaluated[0])]
    np.testing.assert_allclose(recorded, [wanted[name] for name in ids], atol=1e-6)

    def with_tolerances(*tolerances: float) -> Manifest:
        assert manifest.head is not None
        pairs = zip(manifest.head.onnx, tolerances, strict=True)
        onnx = tuple(replace(model, tolerance=tolerance) for model, tolerance in pairs)
        return replace(manifest, head=replace(manifest.head, onnx=onnx))

    # On a machine on which that file answers differently, another file would not fit the
    # temperature and the thresholds.
    with pytest.raises(ProofFailed, match=f"{first.file}: differs from the trainer"):
        open_onnx(adapter, with_tolerances(1e-12, 100.0))


def test_the_trainers_numbers_are_the_contracts(encoder_run: Path) -> None:
    """Probabilities, label and energy, on any logits."""
    manifest = load_adapter(encoder_run / "adapter")
    outputs = outputs_of(manifest)
    logits = np.random.default_rng(1).normal(scale=5, size=(40, len(outputs.names)))
    for temperature in (0.5, 1.0, 3.0):
        probabilities = outputs.probabilities(logits, temperature)
        strange = energy(logits)
        for row, decision in enumerate(outputs.decide(logits, temperature)):
            scores = [decision.scores[label] for label in outputs.labels]
            np.testing.assert_allclose(probabilities[row], scores, atol=1e-12)
            assert decision.out_of_scope == pytest.approx(strange[row])
    assert out_of_scope_score([1.0, 2.0], "energy") == pytest.approx(
        energy(np.array([[1.0, 2.0]]))[0]
    )
