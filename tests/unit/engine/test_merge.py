"""Folding an adapter into its base: the arithmetic, the cache and every refusal."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from worker.contract import AdapterRefused, Manifest
from worker.engine import merge
from worker.engine.merge import merged_base
from worker.errors import SettingsError

Q, EMBED = "model.layers.0.self_attn.q_proj", "model.embed_tokens"
MakeAdapter = Callable[..., Path]
MakePair = Callable[..., dict[str, torch.Tensor]]
MergeIn = Callable[..., Path]


@pytest.fixture
def merge_in(base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path) -> MergeIn:
    """Fold an adapter, made of the same arguments as ``make_adapter``, into the base."""
    return lambda *weights, **config: merged_base(
        base, make_adapter(*weights, **config), manifest, tmp_path / "cache"
    )


def expected(base: Path, adapter: Path, scale: float = 2.0) -> torch.Tensor:
    weight = load_file(base / "model.safetensors")[f"{Q}.weight"]
    lora = load_file(adapter / "adapter_model.safetensors")
    down, up = (lora[f"base_model.model.{Q}.lora_{half}.weight"] for half in "AB")
    merged: torch.Tensor = weight.float() + scale * up @ down
    return merged.to(weight.dtype)


def test_only_the_adapted_weight_changes(
    base: Path, make_adapter: MakeAdapter, merge_in: MergeIn
) -> None:
    """W becomes W + alpha / r * B @ A in the base's dtype; all else is unchanged, to the bit."""
    target = merge_in()
    before = load_file(base / "model.safetensors")
    after = load_file(target / "model.safetensors")
    assert before.keys() == after.keys()
    assert torch.equal(after[f"{Q}.weight"], expected(base, make_adapter()))
    assert after[f"{Q}.weight"].dtype == torch.bfloat16
    for name in before.keys() - {f"{Q}.weight"}:
        assert torch.equal(before[name], after[name])


def test_a_base_in_shards_stays_in_shards(
    base: Path, make_adapter: MakeAdapter, merge_in: MergeIn
) -> None:
    want = expected(base, make_adapter())
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    index = {}
    for number, (name, tensor) in enumerate(weights.items()):
        index[name] = f"model-{number}.safetensors"
        save_file({name: tensor}, base / index[name])
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    target = merge_in()
    kept = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    assert torch.equal(load_file(target / kept[f"{Q}.weight"])[f"{Q}.weight"], want)
    assert len(list(target.glob("*.safetensors"))) == 3


def test_it_is_made_once_for_each_digest(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    adapter, cache = make_adapter(), tmp_path / "cache"
    first = merged_base(base, adapter, manifest, cache)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert merged_base(base, adapter, manifest, cache) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert merged_base(base, adapter, replace(manifest, name="another"), cache) != first


def test_concurrent_requests_make_it_once(
    base: Path,
    make_adapter: MakeAdapter,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter, made = make_adapter(), []
    real = merge._build

    def slow(*arguments: Any) -> None:
        made.append(1)
        time.sleep(0.05)
        real(*arguments)

    monkeypatch.setattr(merge, "_build", slow)
    work = [
        threading.Thread(target=merged_base, args=(base, adapter, manifest, tmp_path / "cache"))
        for _ in range(4)
    ]
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert len(made) == 1


def test_a_failure_leaves_nothing_that_looks_complete(
    merge_in: MergeIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(SettingsError, match="No space left"):
        merge_in()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("module", "rows", "halves", "problem"),
    [
        ("model.layers.9.mlp.up_proj", 4, 2, r"layers\.9.*not a weight of the base"),
        (EMBED, 5, 2, "shares between input and output"),
        (Q, 7, 2, "does not fit"),
        (Q, 4, 1, "not half of a LoRA pair"),
    ],
)
def test_weights_that_do_not_fit_the_base_are_refused(
    merge_in: MergeIn, make_pair: MakePair, module: str, rows: int, halves: int, problem: str
) -> None:
    halves_kept = dict(list(make_pair(module, rows).items())[:halves])
    with pytest.raises(AdapterRefused, match=problem):
        merge_in(halves_kept)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"use_rslora": True}, "use_rslora is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"lora_alpha": 8}, "lora_alpha / r is 4, and the manifest says 2"),
        ({"r": 0}, "not readable"),
    ],
)
def test_more_than_plain_lora_is_refused(
    merge_in: MergeIn, config: dict[str, Any], problem: str
) -> None:
    with pytest.raises(AdapterRefused, match=problem):
        merge_in(**config)
