"""Opening an engine whose library is not installed."""

import sys
from pathlib import Path

import pytest

from tests.support.published import WEIGHTS, publish
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.toy_adapter import toy_manifest
from worker.contract import AdapterRefused, write_manifest
from worker.engine import open as opening
from worker.errors import SettingsError


def test_without_vllm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path, toy_manifest())
    monkeypatch.setattr(opening, "vllm_is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"\.\[gpu\].*\.\[cpu\]"):
        opening.open_engine(base=tmp_path, adapter=tmp_path, cache_dir=tmp_path)


def test_without_onnx_runtime_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_tiny_encoder(tmp_path / "encoder")
    monkeypatch.setattr(opening, "vllm_is_installed", lambda: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"\.\[encoder\]"):
        opening.open_engine(adapter=adapter, cache_dir=tmp_path)


def test_an_altered_adapter_is_refused_before_vllm_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one second instead of ten."""
    published = publish(tmp_path)
    (published.adapter / WEIGHTS).write_bytes(b"other weights")
    imported: list[str] = []
    monkeypatch.setattr(opening, "vllm_is_installed", lambda: True)
    monkeypatch.setattr(opening, "vllm_runs_on_cpu", lambda: imported.append("vllm"))
    monkeypatch.setattr(opening, "begin_to_import", lambda _: None)  # by a process of its own
    with pytest.raises(AdapterRefused, match="was altered: publish it again"):
        opening.open_engine(base=published.base, adapter=published.adapter, cache_dir=tmp_path)
    assert imported == []
