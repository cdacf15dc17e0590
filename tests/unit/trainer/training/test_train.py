"""A complete tiny training: a worker accepts the adapter, and PEFT computes the same logits."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trainer.artifacts.training import Step
from trainer.dataset.folder import open_dataset
from trainer.errors import BadInput, ProofFailed
from trainer.model import lora_model
from trainer.model.lora_model import (
    LoraModel,
    encode_prompts,
    load_adapter_model,
    load_lora_model,
    read_weights,
)
from trainer.model.prompt import Row, load_tokenizer
from trainer.model.published import read_adapter
from trainer.model.scoring import Scorer
from trainer.training import lora_code
from trainer.training.inputs import read_code_inputs, verify_rows
from trainer.training.loop import TrainLoop
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run_folder import checkpoint_identity
from trainer.training.train import train
from worker.contract import (
    Lora,
    Manifest,
    build_prompt,
    load_adapter,
    verify_adapter,
)
from worker.contract.verify import attach_probes, probes_path

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


def recipe(directory: Path, base: Path, dataset: Path, **more: object) -> Recipe:
    settings = {
        "base": base,
        "dataset": dataset,
        "run": directory / "run",
        "lora_rank": 4,
        "lora_alpha": 8,
        "epochs": 6,
        "early_stopping_patience": 6,
        "batch_size": 8,
        "learning_rate": 0.01,
        "prefix_block": 16,
        "mixed_precision": "no",
        "threads": 1,
    }
    return load_recipe(SHIPPED, settings | more)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset_dir: Path
) -> tuple[Path, Manifest, str]:
    """Return (run folder, manifest, output) of a training with finer labels."""
    directory = tmp_path_factory.mktemp("trained")
    with (directory / "log").open("w+", encoding="utf-8") as log:
        train(
            recipe(directory, tiny_base, dataset_dir, sublabel_weight=0.5),
            Console(file=log, width=120, force_terminal=False),
        )
        log.seek(0)
        return directory / "run", load_adapter(directory / "run" / "adapter"), log.read()


def test_the_adapter_passes_every_check_of_a_worker(
    trained: tuple[Path, Manifest, str], tiny_base: Path
) -> None:
    run, manifest, _ = trained
    encoders = load_tokenizer(tiny_base).encoders
    found = verify_adapter(run / "adapter", tiny_base, encoders)
    assert found.digest == manifest.digest
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert not (run / ".adapter.draft").exists()


def test_no_message_of_the_dataset_is_in_the_adapter(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    """Probes stay in the run folder, readable for owner and group, where a worker finds them."""
    lenient = recipe(tmp_path, tiny_base, dataset_dir, review_precision=0.1, review_floor=0.0,
                     steering_augmentation=0.0)  # fmt: skip
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        train(lenient, Console(file=log))
    adapter = tmp_path / "run" / "adapter"
    dataset = open_dataset(dataset_dir)
    content = "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in adapter.iterdir()
    )
    for example in (*dataset.train, *dataset.validation):
        assert example.message not in content
    known = {(example.message, example.label) for example in dataset.validation}
    probes = attach_probes(load_adapter(adapter), adapter).probes
    assert probes
    assert {(probe.message, probe.label) for probe in probes} <= known
    assert probes_path(adapter).stat().st_mode & 0o777 == 0o640


def test_the_run_folder_has_epochs_and_steps(
    trained: tuple[Path, Manifest, str], tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    run, manifest, log = trained
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    assert record["adapter"] == {"name": manifest.name, "digest": manifest.digest}
    epochs = record["epochs"]
    assert epochs[-1]["train_loss"] < 0.9 * epochs[0]["train_loss"]
    assert epochs[-1]["sublabel_loss"] < epochs[0]["sublabel_loss"]
    best = min(epochs, key=lambda epoch: epoch["validation_calibrated_loss"])
    assert record["best_epoch"] == best["number"]
    assert all(epoch["validation_calibrated_loss"] <= epoch["validation_loss"] + 1e-3
               for epoch in epochs)  # fmt: skip
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text("utf-8").splitlines()]
    assert [step["step"] for step in steps] == list(range(1, record["steps"] + 1))
    copies = [
        len(each) for each in read_code_inputs(recipe(tmp_path, tiny_base, dataset_dir)).copies
    ]
    assert steps[-1]["examples"] == 60 * len(epochs) + sum(copies[: len(epochs)])
    again = f"60 rows for training, {copies[0]} of them also with a sentence that names a label"
    assert again in log
    assert "learning curve" in log
    assert "a message of" in log
    assert not (run / "checkpoint").exists()


def test_messages_are_shown_only_on_a_terminal(
    tmp_path: Path, tiny_base: Path, dataset_dir: Path
) -> None:
    """Other output may be kept as a log."""
    inputs = read_code_inputs(recipe(tmp_path, tiny_base, dataset_dir))
    shown = {}
    for is_terminal in (True, False):
        file = io.StringIO()
        verify_rows(inputs, Console(file=file, force_terminal=is_terminal, color_system=None))
        shown[is_terminal] = file.getvalue()
    messages = [example.message for example in inputs.dataset.train]
    assert any(message in shown[True] for message in messages)
    assert not any(message in shown[False] for message in messages)


def test_validation_figures_can_be_recomputed_and_hold_no_text(
    trained: tuple[Path, Manifest, str], dataset_dir: Path
) -> None:
    run, manifest, _ = trained
    text = (run / "validation_predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    right = sum(max(line["logprobs"], key=line["logprobs"].get) == line["label"] for line in lines)
    assert right / len(lines) == manifest.metrics["validation"]["accuracy"]
    assert 0 < right < 13
    first = json.loads((dataset_dir / "validation.jsonl").read_text("utf-8").splitlines()[0])
    assert first["instruction"] not in text


def test_the_adapter_names_no_path_of_this_machine(
    trained: tuple[Path, Manifest, str], tiny_base: Path
) -> None:
    run, manifest, _ = trained
    config = json.loads((run / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == manifest.base.name == tiny_base.name
    for name in ("adapter_config.json", "manifest.json"):
        text = (run / "adapter" / name).read_text(encoding="utf-8")
        assert str(tiny_base) not in text
        assert str(run) not in text


@pytest.mark.parametrize("message", ["where is my parcel", "🙏"])
def test_folding_by_hand_gives_the_logits_of_peft(
    trained: tuple[Path, Manifest, str], tiny_base: Path, message: str
) -> None:
    run, manifest, _ = trained
    adapter = run / "adapter"
    built = build_prompt(manifest.prompt, message, load_tokenizer(tiny_base).encoders.plain)
    assert built is not None
    assert manifest.lora is not None
    ids = torch.tensor([built.ids])
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with torch.inference_mode():
        plain = base(ids).logits[0, -1]
        model = PeftModel.from_pretrained(base, adapter)
        wanted = model(input_ids=ids).logits[0, -1]
        folded = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        weights = {
            key: stored.float()
            for key, stored in load_file(adapter / "adapter_model.safetensors").items()
        }
        assert manifest.lora is not None
        for key, down in weights.items():
            if "lora_A" in key:
                up = weights[key.replace("lora_A", "lora_B")]
                name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                folded.get_parameter(name).add_(manifest.lora.scale * up @ down)
        found = folded(ids).logits[0, -1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain, atol=0.01)


def test_an_adapter_is_not_replaced_unasked_and_a_strange_folder_never(
    trained: tuple[Path, Manifest, str], tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    run, manifest, _ = trained
    with pytest.raises(BadInput, match="add --replace"):
        train(recipe(run.parent, tiny_base, dataset_dir), Console(quiet=True))
    assert load_adapter(run / "adapter").digest == manifest.digest
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "holiday.jpg").touch()
    with pytest.raises(BadInput, match=r"holiday\.jpg"):
        train(recipe(tmp_path, tiny_base, dataset_dir), Console(quiet=True), replace=True)
    assert (tmp_path / "run" / "holiday.jpg").exists()


def test_nothing_is_published_when_the_weights_read_back_differ(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.training import adapter

    def altered(directory: Path) -> dict[str, torch.Tensor]:
        return {name: weights + 0.01 for name, weights in original(directory).items()}

    original = read_weights
    monkeypatch.setattr(adapter, "read_weights", altered)
    short = recipe(tmp_path, tiny_base, dataset_dir, epochs=1)
    with pytest.raises(ProofFailed, match="read back"):
        train(short, Console(quiet=True))
    assert not (short.run / "adapter").exists()


# Calibration on the base that serves, if the adapter was trained on a 4-bit base.


CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


def test_a_loss_that_is_no_number_stops_at_once_and_leaves_the_checkpoint(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one after each step: the next would hold weights that are no numbers."""
    real = TrainLoop._step

    def step(self: TrainLoop, batch: Sequence[Row]) -> Step:
        figures = real(self, batch)
        return figures.model_copy(update={"loss": math.nan}) if self.state.step == 2 else figures

    monkeypatch.setattr(TrainLoop, "_step", step)
    made = recipe(tmp_path, tiny_base, dataset_dir, checkpoint_every_s=0.001)
    with pytest.raises(BadInput, match="the loss is nan at step 3, in epoch 1: lower learning_rat"):
        train(made, Console(quiet=True))
    assert checkpoint_identity(tmp_path / "run") is not None


@pytest.fixture
def four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round the base's linear weights to a coarse grid instead of 4 bits, which need a GPU."""

    def load(base: Path, *, load_in_4bit: bool = False, **choices: Any) -> LoraModel:
        model = load_lora_model(base, **choices)
        if load_in_4bit:
            for name, weights in model.peft_model.named_parameters():
                if "base_layer" in name:
                    weights.data = (weights.data * 5).round() / 5
        return model

    monkeypatch.setattr(lora_code, "load_lora_model", load)
    monkeypatch.setattr(lora_model, "load_lora_model", load)


@pytest.mark.parametrize("serve_in_4bit", [False, True])
def test_it_is_calibrated_on_the_base_that_serves(
    four_bits: None, tiny_base: Path, dataset_dir: Path, tmp_path: Path, serve_in_4bit: bool
) -> None:
    """The recorded validation scores are those of an evaluation, which loads the base as it is
    served."""
    given = {
        "base": tiny_base,
        "dataset": dataset_dir,
        "run": tmp_path / "run",
        "lora_rank": 4,
        "epochs": 2,
        "learning_rate": 0.01,
        "prefix_block": 16,
        "threads": 1,
        "lora_dropout": 0.1,
        "load_in_4bit": True,
        "serve_in_4bit": serve_in_4bit,
    }
    train(load_recipe(CONFIG, given), Console(quiet=True))
    adapter = tmp_path / "run" / "adapter"
    manifest, tokenizer = read_adapter(adapter, tiny_base)
    messages = {row.id: row.message for row in open_dataset(dataset_dir).validation}
    prompts = list(encode_prompts(messages, manifest.prompt, tokenizer).values())
    labels = manifest.taxonomy.names
    model = load_adapter_model(adapter, tiny_base, manifest)
    found = (
        Scorer(model, manifest.prompt.prefix_ids, manifest.codes, "cached").score(prompts).logprobs
    )
    lines = (tmp_path / "run" / "validation_predictions.jsonl").read_text("utf-8").splitlines()
    recorded = [[json.loads(line)["logprobs"][label] for label in labels] for line in lines]
    assert np.abs(found - np.array(recorded)).max() < 1e-3
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["lora_dropout"] == 0.1


def test_a_released_model_holds_no_weights(tiny_base: Path) -> None:
    """So there is room for the base that serves."""
    model = lora_model.load_as_served(tiny_base, Lora(2, 4.0, ()), device="cpu", in_4bit=False)
    assert sum(weights.numel() for weights in model.peft_model.parameters()) > 0
    model.release()
    tensors: list[torch.Tensor] = [*model.peft_model.parameters(), *model.peft_model.buffers()]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == 0
