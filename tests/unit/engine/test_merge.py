"""Folding an adapter into its base: the arithmetic, the cache and every refusal."""

import json
import os
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


def expected(base: Path, adapter: Path, scale: float = 2.0) -> torch.Tensor:
    weight = load_file(base / "model.safetensors")[f"{Q}.weight"]
    lora = load_file(adapter / "adapter_model.safetensors")
    down, up = (lora[f"base_model.model.{Q}.lora_{half}.weight"] for half in "AB")
    merged: torch.Tensor = weight.float() + scale * up @ down
    return merged.to(weight.dtype)


def test_only_the_adapted_weight_changes(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    """W becomes W + alpha / r * B @ A in the base's dtype; all else is unchanged, to the bit."""
    adapter = make_adapter()
    target = merged_base(base, adapter, manifest, tmp_path / "cache")
    before = load_file(base / "model.safetensors")
    after = load_file(target / "model.safetensors")
    assert before.keys() == after.keys()
    assert torch.equal(after[f"{Q}.weight"], expected(base, adapter))
    assert after[f"{Q}.weight"].dtype == torch.bfloat16
    for name in before.keys() - {f"{Q}.weight"}:
        assert torch.equal(before[name], after[name])


def test_the_base_stays_as_it_was_and_its_other_files_come_along(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    before = (base / "model.safetensors").read_bytes()
    target = merged_base(base, make_adapter(), manifest, tmp_path / "cache")
    assert (base / "model.safetensors").read_bytes() == before
    names = {path.name for path in target.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}


def test_a_base_in_shards_stays_in_shards(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    adapter = make_adapter()
    want = expected(base, adapter)
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    index = {}
    for number, (name, tensor) in enumerate(weights.items()):
        index[name] = f"model-{number}.safetensors"
        save_file({name: tensor}, base / index[name])
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    target = merged_base(base, adapter, manifest, tmp_path / "cache")
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
    base: Path,
    make_adapter: MakeAdapter,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    cache = tmp_path / "cache"
    with pytest.raises(SettingsError, match="No space left"):
        merged_base(base, make_adapter(), manifest, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_only_old_leftovers_are_removed(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    old, young = cache / ".partial-old", cache / ".partial-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (1, 1))
    merged_base(base, make_adapter(), manifest, cache)
    assert not old.exists()
    assert young.exists()


def test_a_weight_the_base_lacks_is_refused(
    base: Path,
    make_adapter: MakeAdapter,
    make_pair: MakePair,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(make_pair(Q) | make_pair("model.layers.9.mlp.up_proj"))
    with pytest.raises(AdapterRefused, match=r"layers\.9.*not a weight of the base"):
        merged_base(base, adapter, manifest, tmp_path / "cache")


def test_a_tied_embedding_is_refused(
    base: Path,
    make_adapter: MakeAdapter,
    make_pair: MakePair,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(make_pair(EMBED, 5))
    with pytest.raises(AdapterRefused, match="shares between input and output"):
        merged_base(base, adapter, manifest, tmp_path / "cache")


def test_a_wrong_shape_is_refused(
    base: Path,
    make_adapter: MakeAdapter,
    make_pair: MakePair,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    with pytest.raises(AdapterRefused, match="does not fit"):
        merged_base(base, make_adapter(make_pair(Q, 7)), manifest, tmp_path / "cache")


def test_half_a_pair_is_refused(
    base: Path,
    make_adapter: MakeAdapter,
    make_pair: MakePair,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    weights = make_pair(Q)
    weights.popitem()
    with pytest.raises(AdapterRefused, match="not half of a LoRA pair"):
        merged_base(base, make_adapter(weights), manifest, tmp_path / "cache")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"use_rslora": True}, "use_rslora is set"),
        ({"bias": "all"}, "bias is 'all'"),
        (
            {"modules_to_save": ["lm_head"]},
            r"modules_to_save is \['lm_head'\]",
        ),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"lora_alpha": 8}, "lora_alpha / r is 4, and the manifest says 2"),
        ({"r": 0}, "not readable"),
    ],
)
def test_more_than_plain_lora_is_refused(
    base: Path,
    make_adapter: MakeAdapter,
    manifest: Manifest,
    tmp_path: Path,
    config: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(AdapterRefused, match=problem):
        merged_base(base, make_adapter(**config), manifest, tmp_path / "cache")


def test_a_quantized_base_is_refused(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    save_file({f"{Q}.weight": torch.ones(4, 3, dtype=torch.int8)}, base / "model.safetensors")
    with pytest.raises(AdapterRefused, match="quantized"):
        merged_base(base, make_adapter(), manifest, tmp_path / "cache")


def test_an_unreadable_weight_file_is_refused(
    base: Path, make_adapter: MakeAdapter, manifest: Manifest, tmp_path: Path
) -> None:
    adapter = make_adapter()
    (adapter / "adapter_model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(AdapterRefused, match="cannot be read"):
        merged_base(base, adapter, manifest, tmp_path / "cache")
