"""The production worker with an engine of fixed service time: real loop, real Kafka, no model.

    python -m tests.chaos.fake_worker --set kafka.bootstrap_servers=... [--set ...]

CHAOS_SERVICE_S and CHAOS_CONCURRENCY set the engine's seconds a message and its parallelism,
CHAOS_LOAD_S the seconds that its model takes to load, CHAOS_CONTROL the file that tells the engine
to fail (``tests.chaos.controlled_engine``), CHAOS_BREAK a guarantee to break
(``tests.chaos.broken``). CHAOS_POISON=engine: the engine dies of a message with POISON in it;
=process: the whole process is killed. A message with ``refused until SECONDS`` in it is refused by
the engine before that moment (Unix time), one with FITS_NOWHERE in it fits no label, and one with
``controlled_engine.HANGS`` in it hangs the loop. Where ``model.adapter`` names a store, its
adapters are served, and followed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import worker.app
from tests.chaos.broken import BrokenStream
from tests.chaos.controlled_engine import ControlledLoader, EngineControl, make_engine
from tests.support.fakes import message_of
from tests.support.toy_adapter import ENCODERS, scores, small_manifest
from worker.app import run_worker
from worker.common.logs import configure_logging
from worker.contract import read_manifest
from worker.contract.store import find_adapter
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import EngineDied, WorkerStopped
from worker.settings import Settings, load_settings

POISON = "this message is poison"
FITS_NOWHERE = "this message fits nowhere"


def respond(prompt: Sequence[int]) -> Answer:
    """Choose a label by the prompt alone: the same message always gets the same one."""
    labels = small_manifest().taxonomy.names
    if FITS_NOWHERE in message_of(prompt):
        return scores(labels[0], p=0.02)
    return scores(labels[sum(prompt) % len(labels)], p=0.9 if sum(prompt) % 10 else 0.1)


def make_poisoned(
    control: EngineControl, service_s: float, concurrency: int, death: str
) -> FakeEngine:
    """Return an engine that some messages kill, or the whole process with it."""

    def answer(prompt: Sequence[int]) -> Answer | Exception:
        if POISON not in message_of(prompt):
            return respond(prompt)
        if death == "process":
            os.kill(os.getpid(), signal.SIGKILL)
        engine.die("killed by a message")
        return EngineDied("killed by a message")

    engine = make_engine(answer, control, service_s, concurrency)
    return engine


def open_fake(settings: Settings) -> OpenedEngine:
    """Stand in for ``worker.serving.open_model``."""
    time.sleep(float(os.environ.get("CHAOS_LOAD_S", "0")))
    service_s = float(os.environ.get("CHAOS_SERVICE_S", "0.005"))
    concurrency = int(os.environ.get("CHAOS_CONCURRENCY", "4"))
    named = os.environ.get("CHAOS_CONTROL")
    control = EngineControl(Path(named) if named else None)
    if settings.model.adapter is not None:
        loader = ControlledLoader(control, service_s, concurrency)
        directory = find_adapter(settings.model.adapter).directory
        manifest = read_manifest(directory)
        first = loader.load(directory, manifest)
        return OpenedEngine(first, manifest, ENCODERS, "merged", loader)
    if death := os.environ.get("CHAOS_POISON"):
        engine = make_poisoned(control, service_s, concurrency, death)
    else:
        engine = make_engine(respond, control, service_s, concurrency)
    return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM; return the exit code."""
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # libfaketime 0.9.10 refuses the system call that ``sleep`` makes, unless it may fake the
        # monotonic clock too, which steps on no machine.
        time.sleep = _sleep  # type: ignore[assignment]
    loaded = load_settings(flags=[argument for argument in arguments if argument != "--set"])
    configure_logging("json", loaded.settings.log.level)
    if how := os.environ.get("CHAOS_BREAK"):
        worker.app.KafkaStream = partial(BrokenStream, how)  # type: ignore[assignment,attr-defined]
    try:
        run_worker(loaded.settings, open_fake)
    except WorkerStopped as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
