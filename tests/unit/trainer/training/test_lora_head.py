"""A whole tiny training of a LoRA adapter with a head: what it writes is what a worker accepts and
what PEFT computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from trainer.artifacts.training import TRAINING, Step
from trainer.errors import BadInput, ProofFailed
from trainer.model import forward, scoring
from trainer.model.forward import Layout
from trainer.model.lora_head import HEAD_KEY, load_lora_head
from trainer.model.lora_model import read_weights
from trainer.model.prompt import load_tokenizer
from trainer.model.published import open_scorer, read_adapter
from trainer.training import memory
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run_folder import StepLog
from trainer.training.train import train
from worker.contract import Manifest, disagreement, load_adapter, verify_adapter
from worker.contract.probes import attach_probes
from worker.contract.scoring import decide_from_logits

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[4] / "config" / "trainer-head.toml"
SETTINGS = {
    "lora_rank": 8,
    "lora_alpha": 16,
    "epochs": 12,
    "early_stopping_patience": 12,
    "batch_size": 8,
    "learning_rate": 0.01,
    "head_learning_rate": 0.03,
    "prefix_block": 16,
    "mixed_precision": "no",
    "threads": 1,
    "review_precision_by": "point",  # twelve messages prove nothing
}


def recipe(run: Path, base: Path, dataset: Path, **more: object) -> Recipe:
    return load_recipe(SHIPPED, SETTINGS | {"run": run, "base": base, "dataset": dataset} | more)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset_dir: Path
) -> tuple[Path, Manifest]:
    """Return (run folder, manifest) of a training with finer labels."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(recipe(run, tiny_base, dataset_dir), Console(quiet=True))
    adapter = run / "adapter"
    return run, attach_probes(load_adapter(adapter), adapter)


def test_a_worker_accepts_it_and_it_has_learnt(
    trained: tuple[Path, Manifest], tiny_base: Path
) -> None:
    run, manifest = trained
    encoders = load_tokenizer(tiny_base).encoders
    assert verify_adapter(run / "adapter", tiny_base, encoders).digest == manifest.digest
    assert (manifest.kind, manifest.decoding, dict(manifest.codes)) == ("lora-head", None, {})
    assert manifest.head is not None
    assert (manifest.head.pooling, len(manifest.head.outputs)) == ("last", 6)
    assert manifest.thresholds.review_out_of_scope is not None
    assert manifest.reference is not None
    assert manifest.reference.out_of_scope
    record = TRAINING.read(run)
    assert record.epochs[-1].train_loss < 0.8 * record.epochs[0].train_loss
    assert "with a classification head" in (run / "README.md").read_text(encoding="utf-8")


def test_peft_computes_the_same_logits_from_the_directory(
    trained: tuple[Path, Manifest], tiny_base: Path
) -> None:
    """The files are PEFT's for a model that classifies: what others load, and vLLM."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    run, manifest = trained
    head = manifest.head
    assert head is not None
    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_base, num_labels=len(head.outputs), dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, run / "adapter").eval()
    with torch.inference_mode():
        found = [
            model(torch.tensor([manifest.golden[golden.prompt].ids])).logits[0].tolist()
            for golden in head.golden_logits
        ]
    assert len(found) == len(manifest.golden)
    assert disagreement(head.golden_logits, found, 1e-4) is None


def test_what_is_read_back_decides_as_it_was_calibrated(
    trained: tuple[Path, Manifest], tiny_base: Path
) -> None:
    run, manifest = trained
    read_adapter(run / "adapter", tiny_base)
    prompts = [golden.ids for golden in manifest.golden]
    scorer = open_scorer(run / "adapter", tiny_base, manifest, prompts, device="cpu")
    assert manifest.head is not None
    wanted = np.array([golden.logits for golden in manifest.head.golden_logits])
    np.testing.assert_allclose(scorer.score(prompts).logprobs, wanted, atol=1e-4)
    lines = (run / "validation_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    right = 0
    for scored in map(json.loads, lines):
        logits = [scored["logprobs"][output.name] for output in manifest.head.outputs]
        temperature = manifest.calibration.temperature
        found = decide_from_logits(logits, manifest.head, manifest.taxonomy.names, temperature)
        right += found.label == scored["label"]
    assert right / len(lines) == TRAINING.read(run).validation.accuracy


def test_where_a_prefix_cannot_be_shared_whole_prompts_are_scored(
    trained: tuple[Path, Manifest], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, manifest = trained
    prompts = [golden.ids for golden in manifest.golden]
    original = forward.verify_forward

    def verify(*args: object, layout: Layout) -> float:
        if layout == "cached":
            raise ProofFailed("this architecture crops its cache")
        return original(*args, layout=layout)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "verify_forward", verify)
    scorer = open_scorer(run / "adapter", tiny_base, manifest, prompts, device="cpu")
    assert scorer.model.layout == "whole"  # type: ignore[attr-defined]


class Killed(Exception):
    """Stands for a kill at a step."""


def test_a_training_that_was_killed_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    more = {"epochs": 2, "checkpoint_every_s": 1e-6, "lora_dropout": 0.1, "ema_decay": 0.9}
    train(recipe(tmp_path / "whole", tiny_base, dataset_dir, **more), Console(quiet=True))
    stopped = recipe(tmp_path / "stopped", tiny_base, dataset_dir, **more)
    original = StepLog.write

    def write(self: StepLog, figures: Step) -> None:
        original(self, figures)
        if figures.step == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StepLog, "write", write)
        with pytest.raises(Killed):
            train(stopped, Console(quiet=True))
    assert train(stopped, Console(quiet=True), resume=True).resumed == 1
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_labels_alone_are_learnt_where_the_data_has_no_finer_ones(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    more = {"sublabel_weight": 0.0, "epochs": 1}
    train(recipe(tmp_path / "run", tiny_base, dataset_dir, **more), Console(quiet=True))
    manifest = load_adapter(tmp_path / "run" / "adapter")
    assert manifest.head is not None
    assert tuple(output.name for output in manifest.head.outputs) == manifest.taxonomy.names


def test_weights_of_another_head_are_refused(
    trained: tuple[Path, Manifest], tiny_base: Path
) -> None:
    run, manifest = trained
    model = load_lora_head(run / "adapter", tiny_base, manifest, device="cpu")
    state = read_weights(run / "adapter")
    with pytest.raises(
        BadInput, match=r"score\.weight is of \[2, 32\], and the head has \[6, 32\]"
    ):
        model.load_state_dict(state | {HEAD_KEY: torch.zeros(2, 32)})
    del state[HEAD_KEY]
    with pytest.raises(BadInput, match=r"score\.weight is missing"):
        model.load_state_dict(state)


def test_a_training_that_does_not_fit_is_refused_before_a_weight_is_loaded(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1 << 20)
    with pytest.raises(BadInput, match=r"this training needs about .* and 0.0 GB"):
        train(recipe(tmp_path / "run", tiny_base, dataset_dir), Console(quiet=True))
