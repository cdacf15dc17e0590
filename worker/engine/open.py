"""From an adapter on disk to an engine that can answer.

vLLM serves LoRA adapters, ONNX Runtime encoders; a cascade has an engine for each stage.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from worker.contract import ENCODER_KINDS, Encoders, Kind, Manifest, read_manifest
from worker.contract.head import Precision
from worker.contract.manifest import MOST_STAGES, stage_directory
from worker.contract.verify import load_stages, prompted_by, verify_files, verify_tokens
from worker.engine.arguments import EngineSettings, kv_cache_bytes
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.memory import check_room, free_memory, needed_memory, weight_bytes
from worker.engine.merge import merged_base
from worker.engine.model_files import Bases, LoadedBase, ModelFiles
from worker.engine.onnx_engine import OnnxLoader
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy
from worker.engine.port import AdapterLoader, Declined, Engine
from worker.engine.vllm_config import begin_to_import, vllm_is_installed, vllm_runs_on_cpu
from worker.engine.vllm_engine import VllmEngine
from worker.errors import SettingsError

Serving = Literal["auto", "merged", "runtime"]


ServedAs = Literal["merged", "runtime", "onnx"]
"""How the first adapter is served: folded into its base, next to it, or as an ONNX file."""


def require_vllm() -> None:
    """Raise SettingsError where vLLM is not installed; it is not imported."""
    if not vllm_is_installed():
        raise SettingsError(
            "vLLM is not installed: pip install 'filing-clerk[gpu]' on a machine with a GPU, "
            "'filing-clerk[cpu]' on one without"
        )


@dataclass(frozen=True, slots=True)
class VllmLoader:
    """See ``AdapterLoader``: one engine for each base, or, merged, one for each adapter.

    ``runtime`` has vLLM apply an adapter for each token, next to up to ``max_adapters`` in the
    engine that is up: seconds, and little memory. More are served by turns, ``max_loaded`` out of
    memory. ``merged`` folds each into a copy of the base under ``cache_dir`` and starts an engine
    of its own with that. ``beside``: adapters for which an engine is started with room as well.

    ``must_fit``: others serve, so on a CPU an engine is started only where there is memory for it:
    the kernel would end one of them. ``started`` are the engines that run, ``loading`` what those
    take that are being started (bytes).
    """

    bases: Bases
    cache_dir: Path
    serving: Serving = "auto"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    max_adapters: int = 1
    max_loaded: int = 1
    priorities: bool = False
    beside: tuple[Manifest, ...] = ()
    must_fit: bool = False
    hosts: dict[Path, VllmEngine] = field(default_factory=dict)
    started: list[VllmEngine] = field(default_factory=list)
    loading: list[int] = field(default_factory=list)

    def resolve(self) -> Literal["merged", "runtime"]:
        """Return how adapters are served: merged on a CPU, where it is left open. That imports
        vLLM: 10 s, the first time. Raises SettingsError without it."""
        require_vllm()
        if self.serving == "auto":
            return "merged" if vllm_runs_on_cpu() else "runtime"
        return self.serving

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``. Merged, no prompt gives way to another engine's. Raises
        TooLarge."""
        serving = self.resolve()
        base = self.bases.find(adapter, manifest)
        if serving == "merged":
            with self._room(adapter, base):
                merged = merged_base(base, adapter, manifest, self.cache_dir)
                settings = EngineSettings(merged, manifest, engine_args=self.engine_args)
                return self._start(settings).first
        host = self.hosts.get(base)
        if host is not None and host.is_open:
            return host.add(manifest, adapter, priority=int(background))
        settings = EngineSettings(
            base,
            manifest,
            adapter,
            tuple(each for each in self.beside if _share_an_engine(each, manifest)),
            self.max_adapters,
            self.max_loaded,
            self.priorities,
            self.engine_args,
        )
        with self._room(adapter, base):
            self.hosts[base] = host = self._start(settings)
        return host.first

    def _start(self, settings: EngineSettings) -> VllmEngine:
        self.started[:] = [engine for engine in self.started if engine.is_open]
        engine = VllmEngine(settings)
        self.started.append(engine)
        return engine

    @contextmanager
    def _room(self, adapter: Path, base: Path) -> Iterator[None]:
        """Keep memory for an engine for the adapter while it is loaded. A merged copy is as large
        as its base. Raises TooLarge where there is none next to what others are being loaded into.
        """
        if not self.must_fit or not vllm_runs_on_cpu():
            yield
            return
        running = [engine.memory for engine in self.started if engine.is_open]
        kv_cache = kv_cache_bytes(self.engine_args, os.environ)
        need = needed_memory(weight_bytes(base), kv_cache, running)
        check_room(adapter, need, max(0, free_memory() - sum(self.loading)))
        self.loading.append(need)
        try:
            yield
        finally:
            self.loading.remove(need)


@dataclass(frozen=True, slots=True)
class KindLoader:
    """See ``AdapterLoader``: each kind by the engine that serves it, side by side. A cascade has an
    engine for each stage, each watched by ``policy``."""

    vllm: VllmLoader
    onnx: OnnxLoader
    policy: AdmissionPolicy = UNBOUNDED

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``."""
        if manifest.stages:
            # An engine is started for one stage, and another may be of a higher rank.
            known = {each.digest for each in self.vllm.beside}
            further = [
                read_manifest(stage_directory(adapter, stage))
                for stage in manifest.stages
                if stage.digest not in known
            ]
            roomy = replace(self, vllm=replace(self.vllm, beside=(*self.vllm.beside, *further)))
            return load_cascade(
                roomy, self.vllm.bases, adapter, manifest, self.policy, background=background
            )
        loader = self.onnx if self.engine_of(manifest.kind) == "onnx" else self.vllm
        return loader.load(adapter, manifest, background=background)

    @classmethod
    def engines_of(cls, manifest: Manifest) -> set[Literal["vllm", "onnx"]]:
        """Return what serves an adapter, or the stages of a cascade."""
        kinds = [stage.kind for stage in manifest.stages] or [manifest.kind]
        return {cls.engine_of(kind) for kind in kinds}

    @staticmethod
    def engine_of(kind: Kind) -> Literal["vllm", "onnx"]:
        """Return what serves a kind that is no cascade."""
        return "onnx" if kind in ENCODER_KINDS else "vllm"


def most_in_an_engine(manifests: Iterable[Manifest]) -> int:
    """Return how many places in one engine of vLLM any one of these takes: a cascade as many as
    stages of it share an engine."""
    return max(map(_places, manifests), default=1)


def _places(manifest: Manifest) -> int:
    shared = Counter(
        (stage.base, stage.base_revision, stage.kind)
        for stage in manifest.stages
        if KindLoader.engine_of(stage.kind) == "vllm"
    )
    return max(shared.values(), default=1)


def _share_an_engine(one: Manifest, other: Manifest) -> bool:
    return (one.kind, one.base) == (other.kind, other.base)


def load_cascade(
    loader: AdapterLoader,
    files: ModelFiles,
    adapter: Path,
    manifest: Manifest,
    policy: AdmissionPolicy,
    *,
    background: bool = False,
) -> Engine:
    """Bring up the stages of a cascade, each by ``loader``, the last one first: it takes longest,
    and where it fails nothing was done in vain. See ``AdapterLoader``."""
    opened: list[OpenStage] = []
    try:
        stages = zip(manifest.stages, load_stages(adapter, manifest), strict=True)
        for rule, own in reversed(list(stages)):
            where = stage_directory(adapter, rule)
            encoders = files.encoders(where, own)
            verify_tokens(own, encoders, where)
            engine = loader.load(where, own, background=background)
            opened.insert(0, OpenStage(rule, own, encoders.plain, engine))
    except BaseException:
        for stage in opened:
            stage.engine.close()
        raise
    return CascadeEngine(opened, policy)


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that is up, not yet warm, and the contract that it answers by.

    ``loader`` brings up more adapters next to the first; None where that was not asked for. What
    they need next to their own files is in ``files``: by default the first one's base alone.
    ``declined`` is the adapter that is current in the store, where it could not be served and the
    one before it is.
    """

    engine: Engine
    manifest: Manifest
    encoders: Encoders
    serving: ServedAs
    loader: AdapterLoader | None = None
    files: ModelFiles | None = None
    declined: Declined | None = None

    @property
    def model_files(self) -> ModelFiles:
        """What later adapters are verified with."""
        return self.files or LoadedBase(self.encoders, self.manifest.base)


def begin_to_open(adapter: Path, engine_args: Mapping[str, Any] | None = None) -> None:
    """Begin what an engine for the adapter in this directory will need and what needs nothing
    else; returns at once. It is done by a process of its own while this one looks at its settings
    and topics. Raises AdapterRefused where there is no manifest.
    """
    manifest = read_manifest(adapter)
    kinds = {stage.kind for stage in manifest.stages} or {manifest.kind}
    if not kinds.issubset(ENCODER_KINDS) and vllm_is_installed():
        begin_to_import(engine_args or {})


def open_engine(
    *,
    adapter: Path,
    cache_dir: Path,
    base: Path | None = None,
    bases: Sequence[Path] = (),
    serving: Serving = "auto",
    engine_args: Mapping[str, Any] | None = None,
    encoder_precision: Precision | None = None,
    encoder_threads: int | None = None,
    max_adapters: int = 1,
    others: Sequence[Manifest] = (),
    priorities: bool = False,
    policy: AdmissionPolicy = UNBOUNDED,
) -> OpenedEngine:
    """Verify ``adapter`` and start the engine of its kind: an encoder's in a second, vLLM in
    minutes.

    The base that an adapter needs is ``base`` or among ``bases`` (``Bases``). ``serving``: see
    ``VllmLoader``; ``encoder_precision`` and ``encoder_threads``: see ``OnnxLoader``;
    ``policy`` is for each stage of a cascade. With ``max_adapters`` above 1 others, of any kind,
    can be loaded later, so many at the same time, and with ``priorities`` some of them in the
    background. ``others`` are those that are known to come: the engine is started with room for
    what they need, and each may be a cascade, whose stages that share an engine have a place each.
    Raises AdapterRefused, SettingsError and EngineDied.
    """
    args = engine_args or {}
    found = Bases([*([] if base is None else [base]), *bases])
    known = read_manifest(adapter)
    vllm = VllmLoader(
        found,
        cache_dir,
        serving,
        args,
        max_adapters * most_in_an_engine([known, *others]),
        max_adapters * MOST_STAGES,
        priorities,
        tuple(each for each in others if not each.stages),
    )
    loader = KindLoader(vllm, OnnxLoader(encoder_precision, encoder_threads), policy)
    by_vllm = "vllm" in loader.engines_of(known)
    if by_vllm:
        require_vllm()
        begin_to_import(args)
    manifest = verify_files(adapter)
    encoders = found.encoders(*prompted_by(adapter, manifest))
    verify_tokens(manifest, encoders, adapter)
    served: ServedAs = vllm.resolve() if by_vllm else "onnx"
    first = loader.load(adapter, manifest)
    # From now on something serves that a further engine may not endanger.
    later = replace(loader, vllm=replace(vllm, must_fit=True)) if max_adapters > 1 else None
    return OpenedEngine(first, manifest, encoders, served, later, found)
