#!/opt/filing-clerk/bin/python
"""`clerk-worker run` with an engine of fixed service time: real adapter, real loop, real Kafka.

Mounted into the worker's pods from a ConfigMap, first on their PATH, under the command's name
(conftest.with_fake_engine). FAKE_SERVICE_S and FAKE_CONCURRENCY are the engine's seconds a message
and its parallelism, FAKE_LOAD_S the seconds that its model takes to load. When the file /tmp/hang
appears, the next message hangs the loop forever, like a call that never returns.

The job that creates the topics has the same PATH: commands other than ``run`` are the real ones.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from worker.app import run_worker
from worker.common.logs import configure_logging
from worker.contract import verify_adapter
from worker.engine.fake import FakeEngine
from worker.engine.model_files import load_encoders
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer, CodeScores
from worker.errors import WorkerStopped
from worker.settings import Settings, load_settings

HANG = Path("/tmp/hang")
REAL = "/opt/app/bin/clerk-worker"
SURE, OTHERS = -0.001, -20.0  # log-probabilities of the one label and of each other


class Hanging:
    """An engine whose ``submit`` hangs on demand."""

    def __init__(self, inner: FakeEngine) -> None:
        self._inner = inner
        self.precisions = inner.precisions
        self.warm_up = inner.warm_up
        self.check_health = inner.check_health
        self.close = inner.close

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        if HANG.exists():
            HANG.unlink()  # /tmp outlives the container, and the next one must work
            while True:
                time.sleep(60)
        return self._inner.submit(prompt_ids)


def open_fake(settings: Settings) -> OpenedEngine:
    """Replaces ``worker.serving.open_model``: verifies the adapter and loads no model."""
    assert settings.model.base is not None
    assert settings.model.adapter is not None
    time.sleep(float(os.environ.get("FAKE_LOAD_S", "0")))
    encoders = load_encoders(settings.model.base)
    manifest = verify_adapter(settings.model.adapter, settings.model.base, encoders, weights=False)
    labels = manifest.taxonomy.names

    def respond(prompt: Sequence[int]) -> Answer:
        """Choose by the prompt; about every tenth is uncertain."""
        chosen = sum(prompt) % len(labels)
        if sum(prompt) % 10 == 0:
            return CodeScores(dict.fromkeys(labels, -math.log(len(labels))))
        return CodeScores({each: SURE if n == chosen else OTHERS for n, each in enumerate(labels)})

    engine = FakeEngine(
        respond,
        service_s=float(os.environ.get("FAKE_SERVICE_S", "0.01")),
        concurrency=int(os.environ.get("FAKE_CONCURRENCY", "1")),
    )
    return OpenedEngine(Hanging(engine), manifest, encoders, "merged")


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM, with the arguments that the chart passes; return the exit code."""
    if arguments[0] != "run":
        os.execv(REAL, [REAL, *arguments])
    flag, config = arguments[1:]
    assert flag == "-c"
    loaded = load_settings(Path(config))
    configure_logging("json", loaded.settings.log.level)
    try:
        run_worker(loaded.settings, open_fake)
    except WorkerStopped as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
