"""An adapter made ready to serve: verified, loaded, warmed up and tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.contract import Encoders, Manifest
from worker.contract.tracebacks import describe_private
from worker.core.serving_adapter import ServingAdapter
from worker.engine.memory import TooLarge
from worker.engine.model_files import ModelFiles
from worker.engine.port import AdapterLoader, Engine
from worker.lifecycle.preflight import check_own_probes, compare_on_probes, verify_beside
from worker.lifecycle.refusal import Refusal


@dataclass(frozen=True, slots=True)
class AdapterFactory:
    """What an adapter is made ready with: bases, engines, the record formats.

    ``answer_s`` is how long an answer to a probe may take (seconds).
    """

    files: ModelFiles
    loader: AdapterLoader
    serve: Callable[[Encoders, Manifest, Engine], ServingAdapter]
    answer_s: float

    def make(
        self, directory: Path, digest: str, *, compared_with: Manifest | None, background: bool
    ) -> ServingAdapter:
        """Verify, load and try the adapter in ``directory``. Blocks. Raises Refusal.

        ``compared_with`` is the contract of an adapter, that which serves, on whose probes the new
        one must do about as well. ``background``: its prompts give way to other adapters'.
        """
        manifest, encoders = verify_beside(directory, digest, self.files)
        try:
            engine = self.loader.load(directory, manifest, background=background)
        except TooLarge as error:
            raise Refusal("memory", error.problem) from error
        except Exception as error:  # whatever an engine raises: CUDA out of memory is none of ours
            raise Refusal("engine", describe_private(error)) from error
        try:
            adapter = self.serve(encoders, manifest, engine)
            self._try(adapter, compared_with)
        except BaseException:
            engine.close()
            raise
        return adapter

    def _try(self, adapter: ServingAdapter, compared_with: Manifest | None) -> None:
        labeller, engine = adapter.labeller, adapter.engine
        try:
            engine.warm_up([golden.ids for golden in adapter.manifest.golden])
        except Exception as error:
            raise Refusal("engine", describe_private(error)) from error
        check_own_probes(labeller, engine, self.answer_s)
        if compared_with is not None:
            compare_on_probes(labeller, engine, compared_with, self.answer_s)
