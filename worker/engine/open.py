"""From a base and an adapter on disk to an engine that can answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worker.contract import Encoders, Manifest, verify_adapter
from worker.engine.arguments import EngineSettings
from worker.engine.merge import merged_base
from worker.engine.port import AdapterLoader, Engine
from worker.engine.tokenizer import load_encoders
from worker.engine.vllm_config import begin_to_import, vllm_is_installed, vllm_runs_on_cpu
from worker.engine.vllm_engine import VllmEngine
from worker.errors import SettingsError

Serving = Literal["auto", "merged", "runtime"]


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that is up, not yet warm, and the contract that it answers by.

    ``loader`` brings up more adapters beside the first; None where that was not asked for.
    """

    engine: Engine
    manifest: Manifest
    encoders: Encoders
    serving: Literal["merged", "runtime"]
    loader: AdapterLoader | None = None


@dataclass(frozen=True, slots=True)
class RuntimeLoader:
    """Loads adapters into the engine that is up: seconds, and little memory."""

    engine: VllmEngine

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``."""
        return self.engine.add(manifest, adapter, priority=int(background))


@dataclass(frozen=True, slots=True)
class MergedLoader:
    """Folds each adapter into a copy of the base and starts an engine of its own with that."""

    base: Path
    cache_dir: Path
    engine_args: Mapping[str, Any]

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``. No prompt gives way to another engine's."""
        del background
        merged = merged_base(self.base, adapter, manifest, self.cache_dir)
        return VllmEngine(EngineSettings(merged, manifest, engine_args=self.engine_args)).first


def begin_to_open(engine_args: Mapping[str, Any] | None = None) -> None:
    """Begin what an engine with these arguments will need and what needs nothing else; returns
    at once. It is done by a process of its own while this one looks at its settings and topics.
    """
    if vllm_is_installed():
        begin_to_import(engine_args or {})


def open_engine(
    *,
    base: Path,
    adapter: Path,
    cache_dir: Path,
    serving: Serving = "auto",
    engine_args: Mapping[str, Any] | None = None,
    verify_weights: bool = True,
    max_adapters: int = 1,
    priorities: bool = False,
) -> OpenedEngine:
    """Verify ``adapter`` against ``base``, and start vLLM with both. Takes minutes.

    ``merged`` folds the adapter into a copy of the base under ``cache_dir``, once a digest;
    ``runtime`` has vLLM apply it for each token. ``auto`` merges on a CPU, where the latter
    is ten times slower. ``verify_weights=False`` compares the base's weight files by size only.
    With ``max_adapters`` above 1 others can be loaded later, so many at the same time, and
    with ``priorities`` some of them in the background. Raises AdapterRefused, SettingsError and
    EngineDied.
    """
    if not vllm_is_installed():
        raise SettingsError(
            "vLLM is not installed: pip install 'filing-clerk[gpu]' on a machine with a GPU, "
            "'filing-clerk[cpu]' on one without"
        )
    args = engine_args or {}
    begin_to_open(args)
    encoders = load_encoders(base)
    manifest = verify_adapter(adapter, base, encoders, weights=verify_weights)
    if serving == "auto":
        serving = "merged" if vllm_runs_on_cpu() else "runtime"
    loader: AdapterLoader | None = None
    if serving == "merged":
        merger = MergedLoader(base, cache_dir, args)
        first = merger.load(adapter, manifest)
        loader = merger
    else:
        engine = VllmEngine(EngineSettings(base, manifest, adapter, max_adapters, priorities, args))
        first = engine.first
        loader = RuntimeLoader(engine)
    return OpenedEngine(
        first, manifest, encoders, serving, loader=loader if max_adapters > 1 else None
    )
