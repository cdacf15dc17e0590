"""From a base and an adapter on disk to an engine that can answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worker.contract import Encoders, Manifest, verify_adapter
from worker.engine.arguments import EngineSettings
from worker.engine.merge import merged_base
from worker.engine.port import Engine
from worker.engine.tokenizer import load_encoders
from worker.engine.vllm_engine import VllmEngine, vllm_is_installed, vllm_runs_on_cpu
from worker.errors import SettingsError

Serving = Literal["auto", "merged", "runtime"]


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that is up, not yet warm, and the contract that it answers by."""

    engine: Engine
    manifest: Manifest
    encoders: Encoders
    serving: Literal["merged", "runtime"]


def open_engine(
    *,
    base: Path,
    adapter: Path,
    cache_dir: Path,
    serving: Serving = "auto",
    engine_args: Mapping[str, Any] | None = None,
    verify_weights: bool = True,
) -> OpenedEngine:
    """Verify ``adapter`` against ``base``, and start vLLM with both. Takes minutes.

    ``merged`` folds the adapter into a copy of the base under ``cache_dir``, once a digest;
    ``runtime`` has vLLM apply it for each token. ``auto`` merges on a CPU, where the latter
    is ten times slower. ``verify_weights=False`` compares the base's weight files by size only.
    Raises AdapterRefused, SettingsError and EngineDied.
    """
    if not vllm_is_installed():
        raise SettingsError(
            "vLLM is not installed: pip install 'filing-clerk[gpu]' on a machine with a GPU, "
            "'filing-clerk[cpu]' on one without"
        )
    encoders = load_encoders(base)
    manifest = verify_adapter(adapter, base, encoders, weights=verify_weights)
    if serving == "auto":
        serving = "merged" if vllm_runs_on_cpu() else "runtime"
    settings = EngineSettings(base, manifest, adapter, engine_args or {})
    if serving == "merged":
        merged = merged_base(base, adapter, manifest, cache_dir)
        settings = EngineSettings(merged, manifest, None, engine_args or {})
    return OpenedEngine(VllmEngine(settings), manifest, encoders, serving)
