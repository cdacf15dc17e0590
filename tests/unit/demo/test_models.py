"""The demo's models, completed once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.contract.manifest import read_manifest
from worker.contract.verify import load_adapter
from worker.demo import models
from worker.demo.models import ensure_model, shipped_dir
from worker.demo.program import ProgramFailed

Calls = list[list[str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLERK_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "ensure_base_model", lambda **_: tmp_path / "base")
    return tmp_path / "demo-adapters"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A trainer that makes no files; its arguments are recorded."""
    calls: Calls = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (Path(command[-1]) / "model.onnx").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_encoder_is_made_once_by_the_trainer(cache: Path, trainer: Calls) -> None:
    events: list[str] = []
    model = ensure_model("encoder", events.append)
    assert ensure_model("encoder", events.append) == model
    assert len(trainer) == len(events) == 1
    assert trainer[0][:4] == [sys.executable, "-m", "trainer", "complete"]
    shipped = shipped_dir("encoder")
    assert str(shipped) in trainer[0]
    assert model.adapter == cache / read_manifest(shipped).digest
    assert model.settings() == {"model.adapter": f"'{model.adapter}'"}


def test_a_cascade_is_stored_next_to_its_stages(cache: Path, trainer: Calls) -> None:
    model = ensure_model("cascade")
    assert len(trainer) == 1
    stages = load_adapter(model.adapter).stages
    assert [cache / stage.digest for stage in stages] == [
        ensure_model("encoder").adapter,
        cache / load_adapter(shipped_dir("adapter")).digest,
    ]
    assert [stage.kind for stage in stages] == ["encoder", "lora-code"]
    assert sorted(model.settings()) == ["model.adapter", "model.base"]


@pytest.mark.parametrize(
    ("words", "events"),
    [
        ("ModuleNotFoundError: No module named 'torch'", "[encoder,trainer,embed"),
        ("tokenizer.json is the base's: name its directory with --base", "embeddings]"),
        ("model.onnx: made again it has other bytes", "other bytes$"),
    ],
)
def test_a_failure_of_the_trainer_is_reported_with_its_output(
    cache: Path, monkeypatch: pytest.MonkeyPatch, words: str, events: str
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", words)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ProgramFailed, match=f"(?s)complete failed: .*{events}".replace("[", r"\[")):
        ensure_model("encoder")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
