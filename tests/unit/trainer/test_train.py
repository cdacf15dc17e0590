"""A whole tiny training: what it writes is what a worker accepts and what PEFT computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trainer.errors import BadInput, ProofFailed
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run import train
from trainer.model.tokens import load_tokenizer
from worker.contract import AdapterRefused, Manifest, build_prompt, load_adapter, verify_adapter

SHIPPED = Path(__file__).parents[3] / "config" / "trainer.toml"


def recipe(directory: Path, base: Path, taxonomy: Path, data: tuple[Path, Path], **more) -> Recipe:
    settings = {
        "base": base,
        "taxonomy": taxonomy,
        "data": data[0],
        "holdout": data[1],
        "out": directory / "adapter",
        "run_dir": directory / "run",
        "rank": 4,
        "epochs": 6,
        "patience": 6,
        "batch_size": 8,
        "learning_rate": 0.01,
        "prefix_block": 16,
        "autocast": False,
    }
    return load_recipe(SHIPPED, settings | more)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Path,
    taxonomy_file: Path,
    data_files: tuple[Path, Path],
) -> tuple[Path, Manifest, str]:
    directory = tmp_path_factory.mktemp("trained")
    with (directory / "log").open("w+", encoding="utf-8") as log:
        manifest = train(
            recipe(directory, tiny_base, taxonomy_file, data_files),
            Console(file=log, width=120, force_terminal=False),
        )
        log.seek(0)
        return directory, manifest, log.read()


def test_the_adapter_passes_every_check_of_a_worker(
    trained: tuple[Path, Manifest, str], tiny_base: Path
) -> None:
    directory, manifest, _ = trained
    encoders = load_tokenizer(tiny_base).encoders
    found = verify_adapter(directory / "adapter", tiny_base, encoders)
    assert found.digest == manifest.digest
    assert sorted(one.name for one in (directory / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert not (directory / ".adapter.draft").exists()


def test_it_learnt_something_and_says_how_much(trained: tuple[Path, Manifest, str]) -> None:
    directory, manifest, log = trained
    assert 0 < manifest.metrics["holdout"]["accuracy"] < 1
    assert manifest.metrics["holdout_baseline"]["accuracy"] > 0.9
    metrics = json.loads((directory / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["adapter"]["digest"] == manifest.digest
    assert len(metrics["holdout_confusion"]) == 3
    assert metrics["epochs"][-1]["train_loss"] < 0.9 * metrics["epochs"][0]["train_loss"]
    assert "90 rows learn exactly" in log
    assert "hold-out, 18 messages" in log


def test_predictions_hold_no_message_text(
    trained: tuple[Path, Manifest, str], data_files: tuple[Path, Path]
) -> None:
    directory, _, _ = trained
    text = (directory / "run" / "predictions.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    assert len(records) == 18
    assert all(abs(sum(one["scores"].values()) - 1) < 1e-4 for one in records)
    first = json.loads(data_files[1].read_text(encoding="utf-8").splitlines()[0])
    assert first["message"] not in text


def test_the_adapter_names_no_path_of_this_machine(
    trained: tuple[Path, Manifest, str], tiny_base: Path
) -> None:
    directory, manifest, _ = trained
    config = json.loads((directory / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == manifest.base.name == "SmolLM2-135M-Instruct"
    for name in ("adapter_config.json", "manifest.json"):
        text = (directory / "adapter" / name).read_text(encoding="utf-8")
        assert str(tiny_base) not in text
        assert str(directory) not in text


def test_weights_are_named_as_peft_names_them_and_stored_small(
    trained: tuple[Path, Manifest, str],
) -> None:
    directory, manifest, _ = trained
    with safe_open(directory / "adapter" / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
        assert file.get_tensor(next(iter(names))).dtype == torch.bfloat16
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert len(names) == 2 * 7 * 2  # layers, linear layers in each, A and B
    assert manifest.lora.target_modules == (
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    )


@pytest.mark.parametrize("message", ["where is my parcel", "card declined today", "🙏"])
def test_folding_by_hand_gives_the_logits_of_peft(
    trained: tuple[Path, Manifest, str], tiny_base: Path, message: str
) -> None:
    directory, manifest, _ = trained
    adapter = directory / "adapter"
    built = build_prompt(manifest.prompt, message, load_tokenizer(tiny_base).encoders.plain)
    assert built is not None
    ids = torch.tensor([built.ids])
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with torch.inference_mode():
        plain = base(ids).logits[0, -1]
        model = PeftModel.from_pretrained(base, adapter)
        wanted = model(input_ids=ids).logits[0, -1]
        folded = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        weights = {
            key: one.float()
            for key, one in load_file(adapter / "adapter_model.safetensors").items()
        }
        for key, down in weights.items():
            if "lora_A" in key:
                up = weights[key.replace("lora_A", "lora_B")]
                name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                folded.get_parameter(name).add_(manifest.lora.scale * up @ down)
        found = folded(ids).logits[0, -1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain, atol=0.01)


def test_the_manifest_says_what_it_was_made_of(trained: tuple[Path, Manifest, str]) -> None:
    _, manifest, _ = trained
    assert manifest.data["train"]["per_label"] == dict.fromkeys(manifest.taxonomy.names, 20)
    assert manifest.data["validation"]["per_label"] == dict.fromkeys(manifest.taxonomy.names, 4)
    assert manifest.data["holdout"]["examples"] == 18
    assert manifest.data["taxonomy_sha256"] == manifest.taxonomy.digest
    assert manifest.data["recipe"]["seed"] == 1
    assert set(manifest.versions) == {
        "python",
        "torch",
        "transformers",
        "peft",
        "tokenizers",
        "trainer",
    }
    assert manifest.created_at.endswith("Z")
    assert manifest.calibration.examples == 12


def test_an_adapter_is_not_replaced_unasked_and_a_strange_folder_never(
    trained: tuple[Path, Manifest, str],
    tiny_base: Path,
    taxonomy_file: Path,
    data_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    directory, manifest, _ = trained
    again = recipe(directory, tiny_base, taxonomy_file, data_files)
    with pytest.raises(BadInput, match="add --replace"):
        train(again, Console(quiet=True))
    assert load_adapter(directory / "adapter").digest == manifest.digest
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "holiday.jpg").touch()
    strange = recipe(tmp_path, tiny_base, taxonomy_file, data_files)
    with pytest.raises(BadInput, match=r"holiday\.jpg"):
        train(strange, Console(quiet=True), replace_existing=True)


def test_nothing_is_published_when_the_weights_read_back_differ(
    tiny_base: Path,
    taxonomy_file: Path,
    data_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trainer.training import run

    def altered(directory: Path) -> dict[str, torch.Tensor]:
        return {name: one + 0.01 for name, one in original(directory).items()}

    original = run.read_weights
    monkeypatch.setattr(run, "read_weights", altered)
    short = recipe(tmp_path, tiny_base, taxonomy_file, data_files, epochs=1)
    with pytest.raises(ProofFailed, match="read back"):
        train(short, Console(quiet=True))
    assert not short.out.exists()


def test_a_changed_weight_file_is_refused_later(
    trained: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    directory, _, _ = trained
    copy = tmp_path / "adapter"
    copy.mkdir()
    for path in (directory / "adapter").iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            data[-1] ^= 1
        (copy / path.name).write_bytes(data)
    with pytest.raises(AdapterRefused, match="altered"):
        load_adapter(copy)
