"""Open an engine for an adapter on disk: vLLM for LoRA adapters, ONNX Runtime for encoders, and for
a cascade an engine for each stage."""

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
from worker.engine.model_files import Bases
from worker.engine.onnx_engine import OnnxLoader
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy
from worker.engine.port import AdapterLoader, Declined, Engine
from worker.engine.vllm_config import begin_to_import, vllm_is_installed, vllm_runs_on_cpu
from worker.engine.vllm_engine import VllmEngine
from worker.errors import SettingsError

Serving = Literal["auto", "merged", "runtime"]


ServedAs = Literal["merged", "runtime", "onnx"]
"""How the first adapter is served: folded into its base, applied at runtime, or as ONNX."""


def require_vllm() -> None:
    """Raise SettingsError if vLLM is not installed. Does not import it."""
    if not vllm_is_installed():
        raise SettingsError(
            "vLLM is not installed: in the checkout, pip install -e '.[gpu]' on a machine with a "
            "GPU, '.[cpu]' on one without"
        )


@dataclass(frozen=True, slots=True)
class VllmLoader:
    """See ``AdapterLoader``: one engine for each base (runtime) or for each adapter (merged).

    With ``runtime`` vLLM applies adapters token by token, up to ``max_adapters`` in one engine:
    loading takes seconds and little memory. Further adapters take turns, ``max_loaded`` of them
    kept in memory. With ``merged`` each adapter is folded into a copy of its base under
    ``cache_dir``, with its own engine. An engine is started with room for ``expected`` adapters.

    ``must_fit``: other engines serve, so on a CPU another one starts only if there is memory for
    it; otherwise the kernel would kill one. ``started`` are the running engines, ``loading`` the
    bytes reserved for those that are starting.
    """

    bases: Bases
    cache_dir: Path
    serving: Serving = "auto"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    max_adapters: int = 1
    max_loaded: int = 1
    priorities: bool = False
    expected: tuple[Manifest, ...] = ()
    must_fit: bool = False
    hosts: dict[Path, VllmEngine] = field(default_factory=dict)
    started: list[VllmEngine] = field(default_factory=list)
    loading: list[int] = field(default_factory=list)

    def resolve(self) -> Literal["merged", "runtime"]:
        """Return how adapters are served: with ``auto`` merged on a CPU. That imports vLLM, which
        takes 10 s the first time. Raises SettingsError without vLLM."""
        require_vllm()
        if self.serving == "auto":
            # On a CPU vLLM gathers the weights of a LoRA adapter once for each token: 0.9 messages
            # a second where the base alone answers 9.9, and merged weights cost nothing.
            return "merged" if vllm_runs_on_cpu() else "runtime"
        return self.serving

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``. With ``merged`` there is no ``background``: prompts cannot yield
        to those of another engine. Raises TooLarge."""
        serving = self.resolve()
        base = self.bases.find(adapter, manifest)
        if serving == "merged":
            with self._room(adapter, base):
                merged = merged_base(base, adapter, manifest, self.cache_dir)
                settings = EngineSettings(merged, manifest, engine_args=self.engine_args)
                return self._start(settings).first
        host = self.hosts.get(base)
        # An engine closes with its last adapter, so the one in the table may be gone.
        if host is not None and host.is_open:
            return host.add(manifest, adapter, priority=int(background))
        settings = EngineSettings(
            base,
            manifest,
            adapter,
            tuple(each for each in self.expected if _share_an_engine(each, manifest)),
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
        """Reserve memory for an engine while it starts; a merged copy is as large as its base.
        Raises TooLarge if there is not enough, counting other reservations."""
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
    """See ``AdapterLoader``: loads each kind with the engine that serves it. ``policy`` applies to
    each stage of a cascade."""

    vllm: VllmLoader
    onnx: OnnxLoader
    policy: AdmissionPolicy = UNBOUNDED

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """See ``AdapterLoader``."""
        if manifest.stages:
            # The engine that starts for one stage also serves the others, which may have a higher
            # rank or a longer prompt.
            known = {each.digest for each in self.vllm.expected}
            further = [
                read_manifest(stage_directory(adapter, stage))
                for stage in manifest.stages
                if stage.digest not in known
            ]
            roomy = replace(self, vllm=replace(self.vllm, expected=(*self.vllm.expected, *further)))
            return load_cascade(
                roomy, self.vllm.bases, adapter, manifest, self.policy, background=background
            )
        loader = self.onnx if self.engine_of(manifest.kind) == "onnx" else self.vllm
        return loader.load(adapter, manifest, background=background)

    @classmethod
    def engines_of(cls, manifest: Manifest) -> set[Literal["vllm", "onnx"]]:
        """Return the engines that serve an adapter, or a cascade's stages."""
        kinds = [stage.kind for stage in manifest.stages] or [manifest.kind]
        return {cls.engine_of(kind) for kind in kinds}

    @staticmethod
    def engine_of(kind: Kind) -> Literal["vllm", "onnx"]:
        """Return the engine that serves a kind other than cascades."""
        return "onnx" if kind in ENCODER_KINDS else "vllm"


def most_in_an_engine(manifests: Iterable[Manifest]) -> int:
    """Return the most places that any of these adapters takes in one vLLM engine: a cascade takes
    one for each of its stages that share the engine."""
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
    bases: Bases,
    adapter: Path,
    manifest: Manifest,
    policy: AdmissionPolicy,
    *,
    background: bool = False,
) -> Engine:
    """Load the stages of a cascade with ``loader``, the last one first: it takes longest, so if it
    fails no time was spent on the others. See ``AdapterLoader``."""
    opened: list[OpenStage] = []
    try:
        stages = zip(manifest.stages, load_stages(adapter, manifest), strict=True)
        for rule, own in reversed(list(stages)):
            where = stage_directory(adapter, rule)
            encoders = bases.encoders(where, own)
            verify_tokens(own, encoders, where)
            engine = loader.load(where, own, background=background)
            opened.insert(0, OpenStage(rule, own, encoders.plain, engine))  # back in their order
    except BaseException:
        for stage in opened:
            stage.engine.close()
        raise
    return CascadeEngine(opened, policy)


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """A running engine, not yet warm, with its adapter's manifest.

    ``loader`` loads more adapters, if requested, with the bases and tokenizers in ``files``.
    ``declined`` is the store's current adapter if it could not be served and the one before it is.
    """

    engine: Engine
    manifest: Manifest
    encoders: Encoders
    serving: ServedAs
    loader: AdapterLoader | None = None
    files: Bases | None = None
    declined: Declined | None = None


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

    The adapter's base is ``base`` or among ``bases`` (``Bases``). ``serving``: see ``VllmLoader``;
    ``encoder_precision`` and ``encoder_threads``: see ``OnnxLoader``; ``policy`` applies to each
    stage of a cascade. With ``max_adapters`` above 1 other adapters, of any kind, can be loaded
    later, up to that number in all, and with ``priorities`` some of them in the background.
    ``others`` are adapters that are expected later: the engine starts with room for them. Raises
    AdapterRefused, SettingsError and EngineDied.
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
        # What comes later may be wider than what is named now. It then takes turns out of memory,
        # which these places cost nothing until they are used; as many places in the engine would
        # take a gigabyte of a GPU for cascades that nobody has.
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
    # From now on another engine must not take the memory of the one that serves.
    later = replace(loader, vllm=replace(vllm, must_fit=True)) if max_adapters > 1 else None
    return OpenedEngine(first, manifest, encoders, served, later, found)
