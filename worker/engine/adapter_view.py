"""One adapter's side of an engine that may serve several."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from worker.contract import Manifest
from worker.engine.port import Answer
from worker.engine.warm_up import warm_up_rounds
from worker.errors import EngineDied, MessageRejected


class Host(Protocol):
    """An engine that answers for several adapters; what one is to it, it alone knows."""

    @property
    def precision(self) -> str:
        """What it computes in: see ``Engine.precisions``."""
        ...

    def answer(self, adapter: Any, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer a prompt as this adapter does. Raises EngineDied."""
        ...

    def check_health(self) -> None:
        """Raise EngineDied when nothing can be answered any more."""
        ...

    def remove(self, adapter: Any) -> None:
        """Unload an adapter; with the last one the engine ends. Blocks."""
        ...


class AdapterView:
    """See ``worker.engine.port.Engine``: a host, as one adapter sees it.

    ``close`` unloads this adapter alone; the engine itself ends with its last one.
    """

    def __init__(self, host: Host, adapter: Any, manifest: Manifest, *, cold: bool) -> None:
        self.host = host
        self._adapter = adapter
        self._manifest = manifest
        self._cold = cold
        self._closed = False

    @property
    def precisions(self) -> tuple[str, ...]:
        """See ``Engine``."""
        return (self.host.precision,)

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future aborts it in the engine."""
        self.check_health()
        return self.host.answer(self._adapter, prompt_ids)

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Answer ``prompts``; in a cold engine then made-up ones of many lengths and batch sizes.

        Kernels are built when a shape first comes up. Raises EngineDied when an answer fails.
        """
        rounds = warm_up_rounds(self._manifest, prompts) if self._cold else [[p] for p in prompts]
        for batch in rounds:
            for future in [self.submit(one) for one in batch]:
                try:
                    future.result()
                except MessageRejected as error:
                    raise EngineDied(f"the engine rejects a warm-up prompt: {error}") from error

    def check_health(self) -> None:
        """Raise EngineDied when this adapter is unloaded or its engine is gone."""
        self.host.check_health()
        if self._closed:
            raise EngineDied("this adapter is unloaded")

    def close(self) -> None:
        """Unload this adapter, and end the engine if it was the last. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.host.remove(self._adapter)
