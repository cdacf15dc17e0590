"""ONNX Runtime behind the engine port: encoders with a head, on a CPU.

Each prompt runs alone, on one of several threads with a core each, which take them in the order in
which they came. Batches are a little faster, and in 8-bit integers, whose scale is taken over the
whole batch, an answer would depend on what else was in it (docs/decisions/one-message-a-run.md).

Only this file imports ONNX Runtime, and NumPy for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import structlog

from worker.contract import ENCODER_KINDS, AdapterRefused, Head, Manifest, OnnxModel, disagreement
from worker.contract.head import Precision
from worker.engine.environment import usable_cpus
from worker.engine.port import Answer, HeadLogits
from worker.errors import EngineDied, MessageRejected, SettingsError

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_OUTPUT = "logits"


_CLOSE_S = 15.0
_BACKGROUND_NICENESS = 10
_log = structlog.get_logger("worker.engine")


class Session:
    """A graph as ``OnnxModel`` describes it. Safe to run from several threads.

    The constructor raises AdapterRefused for any other, and SettingsError where ONNX Runtime is not
    installed.
    """

    def __init__(self, path: Path, outputs: int) -> None:
        try:
            import numpy as np
            import onnxruntime
        except ImportError as error:
            raise SettingsError(
                "ONNX Runtime is not installed: pip install 'filing-clerk[encoder]'"
            ) from error
        self._np: Any = np
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises many kinds
            raise AdapterRefused(path, f"ONNX Runtime cannot load it: {kind_of(error)}") from error
        names = {one.name for one in self._session.get_inputs()}
        given = {one.name: one.shape for one in self._session.get_outputs()}
        if not {"input_ids", "attention_mask"} <= names <= _INPUTS or _OUTPUT not in given:
            raise AdapterRefused(
                path,
                f"takes {sorted(names)} and gives {sorted(given)}; it has to take input_ids and "
                f"attention_mask and give {_OUTPUT}",
            )
        width = given[_OUTPUT][-1]
        if isinstance(width, int) and width != outputs:
            raise AdapterRefused(path, f"gives {width} logits and the head has {outputs} outputs")
        self._has_types = "token_type_ids" in names

    def run(self, prompt_ids: Sequence[int]) -> tuple[float, ...]:
        """Return the logits of one prompt."""
        np = self._np
        ids = np.array([prompt_ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if self._has_types:
            inputs["token_type_ids"] = np.zeros_like(ids)
        (logits,) = self._session.run([_OUTPUT], inputs)
        return tuple(logits[0].tolist())


def kind_of(error: Exception) -> str:
    """Name an error without its text, which may hold token ids."""
    return type(error).__name__


@dataclass(frozen=True, slots=True)
class OnnxLoader:
    """See ``AdapterLoader``: an engine of its own for each adapter, in tenths of a second.

    ``precision`` is that of a manifest's ``head.onnx[]``; None: the file that the adapter was
    judged with. ``threads``: None for one on each CPU that the process may use.
    """

    precision: Precision | None = None
    threads: int | None = None

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> OnnxEngine:
        """See ``AdapterLoader``."""
        threads = self.threads or usable_cpus()
        head, model = self._choose(adapter, manifest)
        if model is not head.onnx[0]:
            _log.warning(
                "engine.precision_not_judged",
                adapter=manifest.name,
                serves=model.precision,
                judged=head.onnx[0].precision,
                effect="some labels and confidences are not those of the evaluation",
            )
        try:
            return OnnxEngine(adapter, manifest, model, threads, background=background)
        except AdapterRefused as error:
            if self.precision is not None or len(head.onnx) == 1:
                raise
            other = head.onnx[1].precision
            raise AdapterRefused(
                error.path,
                f"{error.problem}. The adapter was judged in {model.precision}; to serve it in "
                f'{other}, whose labels may differ, set model.encoder_precision = "{other}"',
            ) from error

    def check(self, adapter: Path, manifest: Manifest) -> None:
        """Raise AdapterRefused if an encoder has no file that this loader may serve."""
        if manifest.kind in ENCODER_KINDS:
            self._choose(adapter, manifest)

    def _choose(self, adapter: Path, manifest: Manifest) -> tuple[Head, OnnxModel]:
        head = manifest.head
        if head is None or not head.onnx:
            raise AdapterRefused(
                adapter, "carries no ONNX file, by which this worker serves an encoder: publish it"
            )
        for model in head.onnx:  # the one that was judged is the first
            if self.precision in {None, model.precision}:
                return head, model
        there = ", ".join(one.precision for one in head.onnx)
        raise AdapterRefused(
            adapter, f"has {there}, and model.encoder_precision asks for {self.precision}"
        )


class OnnxEngine:
    """See ``worker.engine.port.Engine``. The constructor returns when it can answer.

    It runs the golden prompts first, and raises AdapterRefused when the file cannot be loaded, is
    no graph as ``OnnxModel`` describes it, or gives other logits than the trainer's model.
    SettingsError where ONNX Runtime is not installed.
    """

    def __init__(
        self,
        adapter: Path,
        manifest: Manifest,
        model: OnnxModel,
        threads: int,
        *,
        background: bool = False,
    ) -> None:
        assert manifest.head is not None
        self._head: Head = manifest.head
        self.precisions: tuple[str, ...] = (model.precision,)
        self._longest = manifest.prompt.max_prompt_tokens
        self._session = Session(adapter / model.file, len(self._head.outputs))
        self._known_good = manifest.golden[0].ids
        self._check_golden(adapter / model.file, manifest, model)
        self._waiting: SimpleQueue[tuple[Future[Answer], Sequence[int]] | None] = SimpleQueue()
        self._closed = False
        self._death: EngineDied | None = None
        self._background = background
        self._threads = [
            threading.Thread(target=self._serve, name=f"onnx-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future takes it out of the line."""
        self.check_health()
        future: Future[Answer] = Future()
        if problem := self._problem(prompt_ids):
            future.set_exception(MessageRejected("engine_rejected", problem))
            return future
        self._waiting.put((future, prompt_ids))
        if self._closed:  # by another thread, which may have emptied the line before
            self._empty()
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Answer ``prompts`` on all threads. Raises EngineDied when an answer fails."""
        for future in [self.submit(prompt) for _ in self._threads for prompt in prompts]:
            try:
                future.result()
            except MessageRejected as error:
                raise EngineDied(f"the engine rejects a warm-up prompt: {error}") from error

    def check_health(self) -> None:
        """Raise EngineDied when the engine is closed, fails on anything or its threads are gone."""
        if self._closed:
            raise EngineDied("the engine is closed")
        if self._death is not None:
            raise self._death
        if not any(thread.is_alive() for thread in self._threads):
            raise EngineDied("the engine's threads are gone")

    def close(self) -> None:
        """Let the threads finish what they run, and fail what waits with EngineDied."""
        self._closed = True
        self._empty()
        for _ in self._threads:
            self._waiting.put(None)
        end = time.monotonic() + _CLOSE_S
        for thread in self._threads:  # daemons: one that hangs ends with the process
            thread.join(max(0.0, end - time.monotonic()))

    def _problem(self, prompt_ids: Sequence[int]) -> str | None:
        if not 0 < len(prompt_ids) <= self._longest:
            return f"a prompt of {len(prompt_ids)} tokens; it takes 1 to {self._longest}"
        if min(prompt_ids) < 0 or max(prompt_ids) >= self._head.vocabulary:
            return "a token id that the model does not have"
        return None

    def _check_golden(self, path: Path, manifest: Manifest, model: OnnxModel) -> None:
        golden = self._head.golden_logits
        try:
            found = [self._session.run(manifest.golden[one.prompt].ids) for one in golden]
        except Exception as error:
            raise AdapterRefused(path, f"does not run: {kind_of(error)}") from error
        if problem := disagreement(golden, found, model.tolerance):
            raise AdapterRefused(path, f"answers otherwise than the trainer's model: {problem}")

    def _serve(self) -> None:
        if self._background:  # on Linux each thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)
        while (asked := self._waiting.get()) is not None:
            future, prompt_ids = asked
            if not future.set_running_or_notify_cancel():
                continue
            if self._death is not None:
                future.set_exception(self._death)
                continue
            try:
                answer = HeadLogits(self._session.run(prompt_ids))
            except Exception as error:  # noqa: BLE001 - of any kind; its text may quote the prompt
                future.set_exception(self._blame(error))
            else:
                future.set_result(answer)

    def _blame(self, error: Exception) -> Exception:
        """Say whose fault a failure is: the prompt's, unless the engine fails on one that it has
        answered before."""
        try:
            self._session.run(self._known_good)
        except Exception as second:  # noqa: BLE001 - as above
            self._death = EngineDied(f"ONNX Runtime fails on every prompt: {kind_of(second)}")
            return self._death
        return MessageRejected("engine_rejected", kind_of(error))

    def _empty(self) -> None:
        kept = 0
        while True:
            try:  # never wait: another thread may take what this one has just seen
                asked = self._waiting.get_nowait()
            except Empty:
                break
            if asked is None:
                kept += 1
            elif asked[0].set_running_or_notify_cancel():
                asked[0].set_exception(EngineDied("the engine was closed"))
        for _ in range(kept):
            self._waiting.put(None)
