"""A loader of adapters whose engines answer as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.swapping import by_length
from worker.contract import Manifest
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, Engine


class FakeLoader:
    """See ``AdapterLoader``. Engines answer as ``respond`` says, at once or after ``service_s``."""

    def __init__(self, service_s: float | None = None, concurrency: int = 4) -> None:
        self.service_s = service_s
        self.concurrency = concurrency
        self.loaded: list[str] = []
        self.open: list[Engine] = []
        self.failures: list[Exception] = []
        self.respond: dict[str, Callable[[Sequence[int]], Answer | Exception]] = {}
        self.gate: threading.Event | None = None

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Make an engine."""
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop()
        self.loaded.append(manifest.digest)
        engine = ImmediateEngine(self.respond.get(manifest.digest) or by_length(manifest))
        if self.service_s is not None:
            engine = FakeEngine(  # type: ignore[assignment]
                self.respond.get(manifest.digest) or by_length(manifest),
                service_s=self.service_s,
                concurrency=self.concurrency,
            )
        self.open.append(engine)
        original = engine.close

        def close() -> None:
            original()
            if engine in self.open:
                self.open.remove(engine)

        engine.close = close  # type: ignore[method-assign]
        return engine


class ImmediateEngine:
    """An engine that answers within ``submit``."""

    def __init__(self, respond: Callable[[Sequence[int]], Answer | Exception]) -> None:
        self.fake = FakeEngine(respond)
        self.precisions: tuple[str, ...] = ("fp32",)
        self.held = False
        """Keep answers back, until ``release``."""

    def submit(self, prompt_ids: Sequence[int]) -> Any:
        """Answer."""
        future = self.fake.submit(prompt_ids)
        if not self.held:
            self.fake.finish_all()
        return future

    def release(self) -> None:
        """Answer what waits."""
        self.fake.finish_all()

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Do nothing."""

    def check_health(self) -> None:
        """Raise EngineDied once closed."""
        self.fake.check_health()

    def die(self) -> None:
        """Die."""
        self.fake.die()

    def close(self) -> None:
        """End."""
        self.fake.close()
