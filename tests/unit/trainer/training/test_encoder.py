"""A complete training of a tiny encoder: a worker accepts it and prefers the better ONNX file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.support.tiny_encoder import make_tiny_encoder
from tests.unit.trainer.training.test_checkpoint import train_and_stop
from trainer.artifacts.training import TRAINING
from trainer.dataset.folder import open_dataset, write_dataset
from trainer.errors import BadInput
from trainer.model.encoder import load_trained_encoder
from trainer.model.onnx_files import OnnxPrecision, onnx_logits
from trainer.model.published import read_adapter
from trainer.model.scoring import HeadScorer
from trainer.statistics.calibration import Bools, Floats
from trainer.training import encoder as onnx_files
from trainer.training.encoder import prefer
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.train import train
from worker.contract import AdapterRefused, Manifest, disagreement, load_adapter, verify_adapter
from worker.contract.verify import attach_probes

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[4] / "config" / "trainer-encoder.toml"
SETTINGS = {
    "max_message_tokens": 100,
    "epochs": 12,
    "early_stopping_patience": 6,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "head_learning_rate": 3e-2,
    "mixed_precision": "no",
    "threads": 1,
    "review_precision_by": "point",  # twelve messages prove nothing
}


def recipe(run: Path, base: Path, dataset: Path, **more: object) -> Recipe:
    places = {"run": run, "base": base, "dataset": dataset}
    return load_recipe(SHIPPED, SETTINGS | places | more)


def linear_recipe(run: Path, base: Path, dataset: Path, **more: Any) -> Recipe:
    return Recipe(
        kind="embedding-linear",
        base=base,
        base_name="tiny",
        base_revision="1",
        dataset=dataset,
        run=run,
        max_message_tokens=100,
        **more,
    )


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, dataset_dir: Path
) -> tuple[Path, Manifest, str]:
    """Return (run folder, manifest, output) of a training with finer labels."""
    run = tmp_path_factory.mktemp("trained") / "run"
    out = io.StringIO()
    train(recipe(run, tiny_encoder, dataset_dir), Console(file=out, width=120))
    adapter = run / "adapter"
    return run, attach_probes(load_adapter(adapter), adapter), out.getvalue()


def test_the_directory_holds_its_whole_model_and_a_worker_accepts_it(
    trained: tuple[Path, Manifest, str], tiny_encoder: Path
) -> None:
    run, manifest, printed = trained
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        *("config.json", "head.safetensors", "manifest.json", "model.int8.onnx", "model.onnx"),
        *("model.safetensors", "tokenizer.json"),
    ]
    assert (manifest.kind, manifest.lora, manifest.decoding) == ("encoder", None, None)
    _, tokenizer = read_adapter(run / "adapter", None)
    assert verify_adapter(run / "adapter", None, tokenizer.encoders).digest == manifest.digest
    assert "3 labels, from 6 finer ones" in printed
    assert "accuracy" in (run / "README.md").read_text(encoding="utf-8")


def test_it_learns_and_is_calibrated_on_validation(trained: tuple[Path, Manifest, str]) -> None:
    run, manifest, _ = trained
    record = TRAINING.read(run)
    assert record.validation.accuracy > 0.8
    assert record.epochs[-1].train_loss < record.epochs[0].train_loss
    assert all(epoch.sublabel_loss is not None for epoch in record.epochs)
    assert manifest.calibration.examples == 12
    assert manifest.thresholds.review_off_label_mass is None
    assert manifest.thresholds.review_out_of_scope is not None
    assert manifest.reference is not None
    assert manifest.reference.out_of_scope
    assert not manifest.reference.off_label_mass
    assert {output.label for output in manifest.head.outputs} == set(  # type: ignore[union-attr]
        manifest.taxonomy.names
    )


def test_every_onnx_file_gives_the_golden_logits_and_the_recorded_figures(
    trained: tuple[Path, Manifest, str],
) -> None:
    run, manifest, _ = trained
    head = manifest.head
    assert head is not None
    prompts = [manifest.golden[golden.prompt].ids for golden in head.golden_logits]
    assert len(prompts) == len(manifest.golden)
    for model in head.onnx:
        found = onnx_logits(
            run / "adapter" / model.file,
            prompts,
            classes=len(head.outputs),
            pad_id=head.pad_id,
        )
        assert disagreement(head.golden_logits, found.tolist(), model.tolerance) is None
    assert [model.precision for model in head.onnx] in (["int8", "fp32"], ["fp32", "int8"])
    recorded = {figures["precision"]: figures for figures in manifest.metrics["onnx"]}
    assert recorded["fp32"]["labels_differ"] == 0
    served = recorded[head.onnx[0].precision]  # which is the first depends on the processor
    assert served["accuracy"] == TRAINING.read(run).validation.accuracy
    assert recorded["int8"]["bytes"] < recorded["fp32"]["bytes"]


def test_a_killed_training_resumes_to_the_same_bits(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path
) -> None:
    """In the middle of an epoch."""
    more = {"epochs": 2, "checkpoint_every_s": 1e-6, "onnx": ""}
    whole = recipe(tmp_path / "whole", tiny_encoder, dataset_dir, **more)
    train(whole, Console(quiet=True))
    stopped = recipe(tmp_path / "stopped", tiny_encoder, dataset_dir, **more)
    train_and_stop(stopped, 3)
    assert train(stopped, Console(quiet=True), resume=True).resumed == 1
    for name in ("model.safetensors", "head.safetensors"):
        found = (tmp_path / "stopped" / "adapter" / name).read_bytes()
        assert found == (tmp_path / "whole" / "adapter" / name).read_bytes()


def test_labels_alone_are_learnt_where_finer_ones_are_not_there(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path
) -> None:
    dataset = open_dataset(dataset_dir)
    learnt = [replace(example, sublabel=None) for example in dataset.train]
    names = ("train", "validation", "holdout")
    splits = {name: learnt[at::3] for at, name in enumerate(names)}
    write_dataset(tmp_path / "data", name="plain", taxonomy=dataset.taxonomy, splits=splits)
    shipped = recipe(tmp_path / "run", tiny_encoder, tmp_path / "data", epochs=1, onnx="")
    assert train(shipped, Console(quiet=True)).epochs[0].sublabel_loss is None
    manifest = load_adapter(tmp_path / "run" / "adapter")
    assert manifest.head is not None
    assert tuple(output.name for output in manifest.head.outputs) == manifest.taxonomy.names


def test_lora_leaves_a_small_file_and_needs_its_base(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path
) -> None:
    """Read back with the base, it computes what the ONNX file with folded LoRA computes."""
    more = {"tuning": "lora", "lora_rank": 4, "lora_alpha": 8, "onnx": "fp32"}
    train(recipe(tmp_path / "run", tiny_encoder, dataset_dir, **more), Console(quiet=True))
    adapter = tmp_path / "run" / "adapter"
    manifest = load_adapter(adapter)
    assert manifest.lora is not None
    assert manifest.lora.rank == 4
    assert not (adapter / "model.safetensors").exists()
    small = (adapter / "adapter_model.safetensors").stat().st_size
    assert small < (tiny_encoder / "model.safetensors").stat().st_size
    with pytest.raises(BadInput, match=f"needs its base, {tiny_encoder.name}"):
        load_trained_encoder(adapter, None, manifest, device="cpu")
    other = make_tiny_encoder(tmp_path / "other", ["another text altogether"] * 3)
    with pytest.raises(AdapterRefused, match=f"the adapter was trained on {tiny_encoder.name}"):
        load_trained_encoder(adapter, other, manifest, device="cpu")
    model = load_trained_encoder(adapter, tiny_encoder, manifest, device="cpu")
    prompts = [golden.ids for golden in manifest.golden]
    assert manifest.head is not None
    theirs = onnx_logits(
        adapter / "model.onnx",
        prompts,
        classes=len(manifest.head.outputs),
        pad_id=model.pad_id,
    )
    np.testing.assert_allclose(HeadScorer(model).logits(prompts), theirs, atol=1e-3)


def test_an_embedding_linear_adapter_has_only_a_head(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path
) -> None:
    record = train(
        linear_recipe(tmp_path / "run", tiny_encoder, dataset_dir, sublabel_weight=1.0),
        Console(quiet=True),
    )
    adapter = tmp_path / "run" / "adapter"
    manifest = load_adapter(adapter)
    assert manifest.kind == "embedding-linear"
    assert manifest.head is not None
    assert manifest.head.normalize
    assert manifest.head.weights == ("head.safetensors",)
    assert record.kept.startswith("C = ")
    assert record.parameters.trainable == 6 * 33
    assert record.validation.accuracy > 0.5
    assert TRAINING.read(tmp_path / "run") == record


def test_a_resumed_training_keeps_its_number_format(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another result of the trial, on a busy machine, must not end the resumed training."""
    from trainer.training import arithmetic as precision

    more = {"epochs": 1, "checkpoint_every_s": 1e-6, "mixed_precision": "auto", "onnx": ""}
    chosen = recipe(tmp_path / "run", tiny_encoder, dataset_dir, **more)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(precision, "is_bf16_faster", lambda step, device: True)
        train_and_stop(chosen, 2)
    monkeypatch.setattr(precision, "is_bf16_faster", lambda step, device: False)
    record = train(chosen, Console(quiet=True), resume=True)
    assert (record.resumed, record.compute_dtype) == (1, "bfloat16")


def test_a_training_that_does_not_fit_is_refused_before_a_weight_is_loaded(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.training import memory as encoder_memory

    monkeypatch.setattr(encoder_memory, "free_memory", lambda device: 1 << 20)
    with pytest.raises(BadInput, match=r"does not fit: memory: about .* try a smaller micro_batch"):
        train(recipe(tmp_path / "run", tiny_encoder, dataset_dir), Console(quiet=True))


# The order of an encoder's files, and the scores it is calibrated on.


def right(lost: int, won: int, same: int = 700) -> dict[OnnxPrecision, Bools]:
    """Return which messages each file labels correctly: ``lost`` only fp32, ``won`` only int8."""
    fp32 = [True] * same + [True] * lost + [False] * won
    int8 = [True] * same + [False] * lost + [True] * won
    return {"fp32": np.array(fp32), "int8": np.array(int8)}


@pytest.mark.parametrize(
    ("lost", "won", "first"),
    [
        (1, 0, "int8"),  # a single message is not evidence
        (5, 3, "int8"),  # 2 more of 8 that differ
        (2, 0, "fp32"),
        (5, 1, "fp32"),  # what half a point of 800 messages was: 4 more of 6
    ],
)
def test_eight_bits_are_preferred_if_as_accurate_within_noise(
    lost: int, won: int, first: str
) -> None:
    assert prefer(right(lost, won))[0] == first


@pytest.mark.parametrize("first", ["int8", "fp32"])
def test_it_is_calibrated_on_the_scores_of_the_file_that_is_served(
    tmp_path: Path,
    tiny_encoder: Path,
    dataset_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: OnnxPrecision,
) -> None:
    """The 8-bit file's logits are doubled, so its temperature is doubled. The model has to learn
    something first: at chance every temperature is equally good."""
    original = onnx_logits

    def logits(path: Path, prompts: object, **more: object) -> Floats:
        found = original(path, prompts, **more)  # type: ignore[arg-type]
        return 2 * found if "int8" in path.name else found

    order = (first, "int8" if first == "fp32" else "fp32")
    monkeypatch.setattr(onnx_files, "onnx_logits", logits)
    monkeypatch.setattr(onnx_files, "prefer", lambda right: order)
    run = tmp_path / "run"
    quick = {"epochs": 12, "mixed_precision": "no", "threads": 1, "max_message_tokens": 100}
    places = {"run": run, "base": tiny_encoder, "dataset": dataset_dir}
    train(load_recipe(SHIPPED, places | quick), Console(quiet=True))
    manifest = load_adapter(run / "adapter")
    assert manifest.head is not None
    assert tuple(model.precision for model in manifest.head.onnx) == order
    recorded = {figures["precision"]: figures for figures in manifest.metrics["onnx"]}
    assert manifest.calibration.temperature == recorded[first]["temperature"]
    assert manifest.calibration.ece == recorded[first]["ece"]
    ratio = recorded["int8"]["temperature"] / recorded["fp32"]["temperature"]
    assert ratio == pytest.approx(2, rel=0.1)
    record = TRAINING.read(run)
    assert record.validation.accuracy == recorded[first]["accuracy"]
