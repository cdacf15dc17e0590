"""Engines of fixed service time that a file tells to crash, to hang or to be slow.

The file holds ``MODE`` or ``MODE SECONDS``: ``crash``, ``hang``, ``slow 0.5`` (so much longer for
each answer), or nothing. What an engine did of it is counted in the file beside it, ``NAME.done``.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from tests.support.fakes import message_of
from tests.support.follower import ToyFiles
from tests.support.swapping import by_length
from worker.contract import Manifest
from worker.engine.fake import FakeEngine
from worker.engine.open import load_cascade
from worker.engine.pacing import UNBOUNDED
from worker.engine.port import Answer, Engine
from worker.errors import MessageRejected

_POLL_S = 0.05
_REFUSED = re.compile(r"refused until ([0-9]+(?:\.[0-9]+)?)")

HANGS = "this message hangs the loop"
UNSURE = "unsure"
"""In an adapter's name: it is sure of nothing that it says."""
_SURE_P, _UNSURE_P = 0.9, 0.55


class EngineControl:
    """Follows the file, for all engines of this process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mode, self._seconds = "", 0.0
        self._told = 0
        self._lock = threading.Lock()
        self._engines: list[FakeEngine] = []
        if path is not None:
            threading.Thread(target=self._follow, daemon=True, name="engine-control").start()

    def watch(self, engine: FakeEngine) -> None:
        """Let this engine crash too, when it is told."""
        self._engines.append(engine)

    def obey(self) -> None:
        """Called by an engine for each answer: be as slow as is told, or never come back."""
        if self._mode == "slow":
            time.sleep(self._seconds)
            self._tell()
        while self._mode == "hang":
            self._tell()
            time.sleep(_POLL_S)

    def _follow(self) -> None:
        assert self._path is not None
        while True:
            words = self._path.read_text("utf-8").split() if self._path.exists() else []
            mode = words[0] if words else ""
            self._seconds = float(words[1]) if len(words) > 1 else 0.0
            if mode != self._mode:
                self._mode, self._told = mode, 0
            if mode == "crash":
                for engine in self._engines:
                    engine.die("the engine was told to crash")
            time.sleep(_POLL_S)

    def _tell(self) -> None:
        assert self._path is not None
        with self._lock:
            self._told += 1
            written = self._path.with_suffix(".new")
            written.write_text(str(self._told), "utf-8")
            written.replace(self._path.with_suffix(".done"))


class HangingEngine(FakeEngine):
    """One whose ``submit`` never comes back from a message with HANGS in it."""

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Take a prompt in, or never return."""
        while HANGS in message_of(prompt_ids):
            time.sleep(60)
        return super().submit(prompt_ids)


def make_engine(
    respond: Callable[[Sequence[int]], Answer | Exception],
    control: EngineControl,
    service_s: float,
    concurrency: int,
) -> FakeEngine:
    """Return an engine that answers so, under control.

    A message with ``refused until SECONDS`` in it is refused before that moment (Unix time); one
    with HANGS in it hangs whoever submits it.
    """

    def answer(prompt: Sequence[int]) -> Answer | Exception:
        control.obey()
        refused = _REFUSED.search(message_of(prompt))
        if refused and time.time() < float(refused[1]):
            return MessageRejected("engine_rejected", "the engine was told to refuse it")
        return respond(prompt)

    engine = HangingEngine(answer, service_s=service_s, concurrency=concurrency)
    control.watch(engine)
    return engine


class ControlledLoader:
    """See ``AdapterLoader``: each adapter answers with labels that it alone has, a cascade with its
    stages'; one with UNSURE in its name is sure of none."""

    def __init__(self, control: EngineControl, service_s: float, concurrency: int) -> None:
        self._control = control
        self._service_s = service_s
        self._concurrency = concurrency

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Make an engine."""
        if manifest.stages:
            files = ToyFiles(manifest.base)
            return load_cascade(self, files, adapter, manifest, UNBOUNDED, background=background)
        p = _UNSURE_P if UNSURE in manifest.name else _SURE_P
        respond = by_length(manifest, p)
        return make_engine(respond, self._control, self._service_s, self._concurrency)
