"""ONNX Runtime behind the engine port: encoders with a head, on a CPU.

Each prompt runs alone, in order of arrival, on one of several threads with a core each. Batches
would be slightly faster, but with 8-bit integers, whose scale is computed over the batch, an answer
would depend on the other messages in it (docs/decisions/one-message-a-run.md).

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
from worker.contract.errors import MessageRejected
from worker.contract.head import TEXT_INPUT, Precision, text_of
from worker.engine.environment import usable_cpus
from worker.engine.port import Answer, HeadLogits
from worker.errors import EngineDied, SettingsError

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_OUTPUT = "logits"


_CLOSE_S = 15.0
_BACKGROUND_NICENESS = 10
_log = structlog.get_logger("worker.engine")


class Session:
    """A graph as described in ``OnnxModel``. Thread-safe. The constructor raises AdapterRefused for
    any other graph, and SettingsError without ONNX Runtime."""

    def __init__(self, path: Path, outputs: int) -> None:
        try:
            import numpy as np
            import onnxruntime
        except ImportError as error:
            raise SettingsError(
                "ONNX Runtime is not installed: in the checkout, pip install -e '.[encoder]'"
            ) from error
        self._np: Any = np
        options = onnxruntime.SessionOptions()
        # The engine's own threads run one prompt each; a second level of threads would compete.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises many kinds
            raise AdapterRefused(path, f"ONNX Runtime cannot load it: {kind_of(error)}") from error
        names = {one.name for one in self._session.get_inputs()}
        given = {one.name: one.shape for one in self._session.get_outputs()}
        self._reads_text = names == {TEXT_INPUT}
        reads_tokens = {"input_ids", "attention_mask"} <= names <= _INPUTS
        if not (self._reads_text or reads_tokens) or _OUTPUT not in given:
            raise AdapterRefused(
                path,
                f"takes {sorted(names)} and returns {sorted(given)}; it must take input_ids and "
                f"attention_mask, or {TEXT_INPUT}, and return {_OUTPUT}",
            )
        width = given[_OUTPUT][-1]
        if isinstance(width, int) and width != outputs:
            raise AdapterRefused(path, f"returns {width} logits; the head has {outputs} outputs")
        self._has_types = "token_type_ids" in names

    def run(self, prompt_ids: Sequence[int]) -> tuple[float, ...]:
        """Return the logits of one prompt."""
        np = self._np
        if self._reads_text:
            inputs = {TEXT_INPUT: np.array([text_of(prompt_ids)], dtype=object)}
        else:
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
    """See ``AdapterLoader``: one engine for each adapter, in tenths of a second.

    ``precision`` chooses among a manifest's ``head.onnx``; None: the judged file. ``threads`` None:
    one for each CPU that the process may use.
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
                effect="some labels and confidences differ from the evaluation",
            )
        try:
            return OnnxEngine(adapter, manifest, model, threads, background=background)
        except AdapterRefused as error:
            if self.precision is not None or len(head.onnx) == 1:
                raise
            # Named and not served: the same digest in another precision gives some messages other
            # labels, and everything in the manifest was judged in the first.
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
                adapter, "has no ONNX file, which an encoder needs: publish it with one"
            )
        for model in head.onnx:  # the judged one is first
            if self.precision in {None, model.precision}:
                return head, model
        there = ", ".join(one.precision for one in head.onnx)
        raise AdapterRefused(
            adapter, f"has {there}, but model.encoder_precision is {self.precision}: change it"
        )


class OnnxEngine:
    """See ``worker.engine.port.Engine``. The constructor returns when it can answer.

    It runs the golden prompts first, and raises AdapterRefused if the file cannot be loaded, is not
    as described in ``OnnxModel``, or returns other logits than the trainer's model.
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
        """Begin to answer one prompt. Cancelling the future removes it from the queue."""
        self.check_health()
        future: Future[Answer] = Future()
        if problem := self._problem(prompt_ids):
            future.set_exception(MessageRejected("engine_rejected", problem))
            return future
        self._waiting.put((future, prompt_ids))
        if self._closed:  # by another thread, which may have emptied the queue before the put
            self._empty()
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Answer ``prompts`` on all threads. Raises EngineDied if an answer fails."""
        for future in [self.submit(prompt) for _ in self._threads for prompt in prompts]:
            try:
                future.result()
            except MessageRejected as error:
                raise EngineDied(f"the engine rejects a warm-up prompt: {error}") from error

    def check_health(self) -> None:
        """Raise EngineDied if the engine is closed or fails on every prompt, or its threads are
        gone."""
        if self._closed:
            raise EngineDied("the engine is closed")
        if self._death is not None:
            raise self._death
        if not any(thread.is_alive() for thread in self._threads):
            raise EngineDied("the engine's threads are gone")

    def close(self) -> None:
        """Let the threads finish their current prompts; fail queued ones with EngineDied."""
        self._closed = True
        self._empty()
        for _ in self._threads:  # one end mark for each thread
            self._waiting.put(None)
        end = time.monotonic() + _CLOSE_S
        for thread in self._threads:  # daemon threads: one that hangs does not keep the process
            thread.join(max(0.0, end - time.monotonic()))

    def _problem(self, prompt_ids: Sequence[int]) -> str | None:
        if not 0 < len(prompt_ids) <= self._longest:
            return f"a prompt of {len(prompt_ids)} tokens; allowed are 1 to {self._longest}"
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
            raise AdapterRefused(path, f"answers differ from the trainer's model: {problem}")

    def _serve(self) -> None:
        if self._background:  # Linux has a niceness for each thread
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
        """Blame the prompt for a failure, or the engine if it now also fails on a golden prompt."""
        try:
            self._session.run(self._known_good)
        except Exception as second:  # noqa: BLE001 - as above
            self._death = EngineDied(f"ONNX Runtime fails on every prompt: {kind_of(second)}")
            return self._death
        return MessageRejected("engine_rejected", kind_of(error))

    def _empty(self) -> None:
        kept = 0
        while True:
            try:  # without waiting: another thread may have taken the last one
                asked = self._waiting.get_nowait()
            except Empty:
                break
            if asked is None:
                kept += 1
            elif asked[0].set_running_or_notify_cancel():
                asked[0].set_exception(EngineDied("the engine was closed"))
        for _ in range(kept):
            self._waiting.put(None)
