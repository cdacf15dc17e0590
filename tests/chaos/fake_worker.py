"""The production worker with an engine of fixed service time: real loop, real Kafka, no model.

    python -m tests.chaos.fake_worker --set kafka.bootstrap_servers=... [--set ...]

CHAOS_SERVICE_S and CHAOS_CONCURRENCY set the engine's seconds a message and its parallelism,
CHAOS_LOAD_S the seconds that its model takes to load, CHAOS_CONTROL the file that makes the engine
fail, CHAOS_BREAK a guarantee to break (``BROKEN``). CHAOS_POISON=engine: a message with POISON in
it kills the engine; =process: it kills the whole process. A message with ``refused until SECONDS``
in it is refused by the engine before that moment (Unix time), one with FITS_NOWHERE fits no label,
and one with ``HANGS`` hangs the loop. Where ``model.adapter`` names a store, the worker serves and
follows its adapters.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import worker.app
from tests.support.follower import ToyFiles
from tests.support.rig import message_of
from tests.support.toy_adapter import ENCODERS, by_length, scores, small_manifest
from worker.app import run_worker
from worker.common.logs import configure_logging
from worker.contract import Manifest, read_manifest
from worker.contract.errors import MessageRejected
from worker.contract.records import record_id
from worker.contract.store import find_adapter
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine, load_cascade
from worker.engine.pacing import UNBOUNDED
from worker.engine.port import Answer, Engine
from worker.errors import EngineDied, WorkerStopped
from worker.records.types import Batch
from worker.settings import Settings, load_settings
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig

# Engines of fixed service time that a file makes crash, hang or slow.
#
# The file holds ``MODE`` or ``MODE SECONDS``: ``crash``, ``hang``, ``slow 0.5`` (that much longer
# for each answer), or nothing. What an engine did because of it is counted in the file
# ``NAME.done`` next to it.


_POLL_S = 0.05
_REFUSED = re.compile(r"refused until ([0-9]+(?:\.[0-9]+)?)")

HANGS = "this message hangs the loop"
UNSURE = "unsure"
"""In an adapter's name: it is never sure of its label."""
_SURE_P, _UNSURE_P = 0.9, 0.55


class EngineControl:
    """Follows the control file, for all engines of this process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mode, self._seconds = "", 0.0
        self._obeyed = 0
        self._lock = threading.Lock()
        self._engines: list[FakeEngine] = []
        if path is not None:
            threading.Thread(target=self._follow, daemon=True, name="engine-control").start()

    def watch(self, engine: FakeEngine) -> None:
        """Let this engine crash when the file says so."""
        self._engines.append(engine)

    def obey(self) -> None:
        """Called for each answer: be slow as the file says, or never return."""
        if self._mode == "slow":
            time.sleep(self._seconds)
            self._count()
        while self._mode == "hang":
            self._count()
            time.sleep(_POLL_S)

    def _follow(self) -> None:
        assert self._path is not None
        while True:
            words = self._path.read_text("utf-8").split() if self._path.exists() else []
            mode = words[0] if words else ""
            self._seconds = float(words[1]) if len(words) > 1 else 0.0
            if mode != self._mode:
                self._mode, self._obeyed = mode, 0
            if mode == "crash":
                for engine in self._engines:
                    engine.die("the engine was made to crash")
            time.sleep(_POLL_S)

    def _count(self) -> None:
        assert self._path is not None
        with self._lock:
            self._obeyed += 1
            written = self._path.with_suffix(".new")
            written.write_text(str(self._obeyed), "utf-8")
            written.replace(self._path.with_suffix(".done"))


class HangingEngine(FakeEngine):
    """Its ``submit`` never returns for a message with HANGS in it."""

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        while HANGS in message_of(prompt_ids):
            time.sleep(60)
        return super().submit(prompt_ids)


def make_engine(
    respond: Callable[[Sequence[int]], Answer | Exception],
    control: EngineControl,
    service_s: float,
    concurrency: int,
) -> FakeEngine:
    """Make an engine that answers with ``respond``, follows the control file, and refuses
    messages with ``refused until SECONDS`` before that moment (Unix time)."""

    def answer(prompt: Sequence[int]) -> Answer | Exception:
        control.obey()
        refused = _REFUSED.search(message_of(prompt))
        if refused and time.time() < float(refused[1]):
            return MessageRejected("engine_rejected", "the engine was made to refuse it")
        return respond(prompt)

    engine = HangingEngine(answer, service_s=service_s, concurrency=concurrency)
    control.watch(engine)
    return engine


class ControlledLoader:
    """See ``AdapterLoader``. Each adapter answers with its own labels, a cascade with its
    stages'; one with UNSURE in its name has a low confidence."""

    def __init__(self, control: EngineControl, service_s: float, concurrency: int) -> None:
        self._control = control
        self._service_s = service_s
        self._concurrency = concurrency

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        if manifest.stages:
            files = ToyFiles(manifest.base)
            return load_cascade(self, files, adapter, manifest, UNBOUNDED, background=background)
        p = _UNSURE_P if UNSURE in manifest.name else _SURE_P
        respond = by_length(manifest, p)
        return make_engine(respond, self._control, self._service_s, self._concurrency)


# Streams that break a guarantee on purpose, to see whether the suite notices.

Publish = Callable[[Batch], None]

_BETWEEN_S = 0.3
"""Longer than the correct way takes, so that a kill is likely to fall in between."""


def _commit_first(publish: Publish, batch: Batch) -> None:
    """Offsets first, results later: a kill in between loses results."""
    publish(replace(batch, outputs=()))
    time.sleep(_BETWEEN_S)
    publish(replace(batch, next_offsets=()))


def _two_transactions(publish: Publish, batch: Batch) -> None:
    """Results first, offsets later: a kill in between duplicates results."""
    publish(replace(batch, next_offsets=()))
    time.sleep(_BETWEEN_S)
    publish(replace(batch, outputs=()))


def _out_of_order(publish: Publish, batch: Batch) -> None:
    """Everything in reverse order."""
    publish(replace(batch, outputs=tuple(reversed(batch.outputs))))


def _lose_some(publish: Publish, batch: Batch) -> None:
    """Leave out the first result of each batch but commit its offset."""
    publish(replace(batch, outputs=tuple(batch.outputs[1:])))


def _double_some(publish: Publish, batch: Batch) -> None:
    """Publish the first result of each batch twice."""
    publish(replace(batch, outputs=(*batch.outputs, *batch.outputs[:1])))


def _invent_some(publish: Publish, batch: Batch) -> None:
    """Add a label for a record that does not exist to each batch."""
    made_up = []
    for output in batch.outputs[:1]:
        record = json.loads(output.value or b"{}")
        source = record["source"]
        source["offset"] = 10**9
        record["id"] = record_id(source["topic"], source["partition"], source["offset"])
        made_up.append(replace(output, value=json.dumps(record).encode()))
    publish(replace(batch, outputs=(*batch.outputs, *made_up)))


def _all_in_turn(publish: Publish, batch: Batch) -> None:
    """In turn, all of those that show without a kill."""
    next(_TURNS)(publish, batch)


_TURNS = itertools.cycle((_out_of_order, _lose_some, _double_some, _invent_some))

BROKEN: Mapping[str, Callable[[Publish, Batch], None]] = {
    "commit_first": _commit_first,
    "two_transactions": _two_transactions,
    "out_of_order": _out_of_order,
    "lose_some": _lose_some,
    "double_some": _double_some,
    "invent_some": _invent_some,
    "all_in_turn": _all_in_turn,
}


def break_stream(how: str, config: KafkaConfig) -> KafkaStream:
    """A stream whose ``publish`` breaks a guarantee, except for offsets and their notes alone."""
    stream = KafkaStream(config)
    whole = stream.publish

    def publish(batch: Batch) -> None:
        if batch.outputs:
            BROKEN[how](whole, batch)
        else:
            whole(batch)

    stream.publish = publish  # type: ignore[method-assign]
    return stream


POISON = "this message is poison"
FITS_NOWHERE = "this message fits nowhere"


def respond(prompt: Sequence[int]) -> Answer:
    """Choose a label by the prompt: the same message always gets the same label."""
    labels = small_manifest().taxonomy.names
    if FITS_NOWHERE in message_of(prompt):
        return scores(labels[0], p=0.02)
    return scores(labels[sum(prompt) % len(labels)], p=0.9 if sum(prompt) % 10 else 0.1)


def make_poisoned(
    control: EngineControl, service_s: float, concurrency: int, death: str
) -> FakeEngine:
    """Make an engine that crashes on some messages, or kills its process."""

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
        return OpenedEngine(first, manifest, ENCODERS, "merged", loader, ToyFiles(manifest.base))
    if death := os.environ.get("CHAOS_POISON"):
        engine = make_poisoned(control, service_s, concurrency, death)
    else:
        engine = make_engine(respond, control, service_s, concurrency)
    return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


def main(arguments: Sequence[str]) -> int:
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # libfaketime 0.9.10 refuses the system call of ``sleep`` unless it may fake the monotonic
        # clock too, which never steps on a real machine.
        time.sleep = _sleep  # type: ignore[assignment]
    loaded = load_settings(flags=[argument for argument in arguments if argument != "--set"])
    configure_logging("json", loaded.settings.log.level)
    if how := os.environ.get("CHAOS_BREAK"):
        worker.app.KafkaStream = partial(break_stream, how)  # type: ignore[assignment,attr-defined]
    try:
        run_worker(loaded.settings, open_fake)
    except WorkerStopped as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
