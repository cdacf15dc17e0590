"""From a base and an adapter on disk to an engine that can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from worker.contract import ENCODER_KINDS, Encoders, Manifest, read_manifest
from worker.contract.cascade import MOST_STAGES
from worker.contract.head import Precision
from worker.contract.verify import prompted_by, verify_files, verify_tokens
from worker.engine.loaders import (
    KindLoader,
    Serving,
    VllmLoader,
    most_in_an_engine,
    require_vllm,
)
from worker.engine.model_files import Bases, LoadedBase, ModelFiles
from worker.engine.onnx_engine import OnnxLoader
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy
from worker.engine.port import AdapterLoader, Declined, Engine
from worker.engine.vllm_config import begin_to_import, vllm_is_installed

ServedAs = Literal["merged", "runtime", "onnx"]
"""How the first adapter is served: folded into its base, beside it, or as an ONNX file."""


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that is up, not yet warm, and the contract that it answers by.

    ``loader`` brings up more adapters beside the first; None where that was not asked for. What
    they need beside their own files is in ``files``: by default the first one's base alone.
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
