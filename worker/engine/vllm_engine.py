"""vLLM's AsyncLLM behind the engine port. Only the files ``vllm_*.py`` here import vllm.

AsyncLLM runs on an asyncio loop in a separate thread, so the thread that submits never waits for
it, and AsyncLLM never waits for Kafka.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import signal
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import structlog

from worker.contract import AdapterRefused, Branch, CodeWalk, Manifest, find_branches
from worker.contract.errors import InvalidScores, MessageRejected
from worker.engine.arguments import EngineSettings, answer_tokens, precision_name
from worker.engine.memory import EngineMemory, weight_bytes
from worker.engine.port import Answer, CodeScores
from worker.engine.processes import ChildProcesses
from worker.engine.vllm_config import no_warnings, request_params, vllm_config
from worker.engine.vllm_core import client_context, starting_processes
from worker.errors import EngineDied

_SHUTDOWN_S = 15
_CONTEXT_S = 5
_LOAD_S = 300
_CALL_POLL_S = 0.5
_log = structlog.get_logger("worker.engine")
_OUT_OF_MEMORY = (
    "the memory of the machine or the container is full: give it more, or reduce "
    "kv_cache_memory_bytes or max_num_batched_tokens in model.engine_args"
)


_MESSAGE_TOKENS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_BATCHES = (1, 2, 8, 32)
_POLL_S = 0.01
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Adapter:
    """vLLM's arguments for each prompt of an adapter: ``params`` has for each branch of the codes
    one entry for each request that it takes. ``priority``: lower goes first."""

    manifest: Manifest
    params: Mapping[Branch, tuple[Any, ...]]
    lora: Any
    priority: int = 0


class VllmEngine:
    """One model with its first adapter (``first``) and those added later.

    The constructor returns when the engine can answer, after half a minute or several. It raises
    SettingsError, AdapterRefused if vLLM cannot load the adapter, and EngineDied if the engine does
    not start. It sets environment variables for vLLM (``engine_environment``) for good.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._numbers = itertools.count()
        # A new number for each adapter, never reused: vLLM's caches use name, number and path, and
        # weights that are replaced under the same ones are served from a stale cache (vLLM issue
        # 42125).
        self._lora_numbers = itertools.count(1)
        self._answers: set[asyncio.Task[Answer] | None] = set()
        self._llm: Any = None
        self._closed = False
        # vLLM can only write its metrics to the global registry of Prometheus' client.
        self._statistics = not settings.engine_args.get("disable_log_stats", True)
        self._engine_args = settings.engine_args
        self._model = settings.model
        config = vllm_config(settings)
        self._config = config
        self._vocabulary: int = config.model_config.get_vocab_size()
        self.precision = precision_name(
            str(config.model_config.dtype), config.model_config.quantization
        )
        first = self._describe(settings.manifest, settings.adapter)
        self._adapters = {first}
        self.first = AdapterView(self, first, settings.manifest, cold=True)
        self._processes = ChildProcesses()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        self._start_up = asyncio.run_coroutine_threadsafe(self._start(first), self._loop)
        try:
            self._start_up.result()
        except BaseException:
            self.close()
            raise

    @property
    def memory(self) -> EngineMemory:
        """The memory of its processes. From any thread."""
        return EngineMemory(self._processes.memory_bytes(), weight_bytes(self._model))

    @property
    def is_open(self) -> bool:
        """Whether it runs; unloading the last adapter closes it."""
        return not self._closed

    def add(self, manifest: Manifest, directory: Path, *, priority: int = 0) -> AdapterView:
        """Load another LoRA adapter. Blocks; callable from any thread. Raises EngineDied, and
        AdapterRefused if it does not fit this engine or vLLM cannot load it."""
        if problem := self._misfit(manifest):
            raise AdapterRefused(directory, f"{problem}: restart the worker with it")
        self.check_health()
        adapter = self._describe(manifest, directory, priority)
        asyncio.run_coroutine_threadsafe(self._load(adapter), self._loop).result(_LOAD_S)
        self._adapters.add(adapter)
        places = self._config.lora_config.max_loras
        if len(self._adapters) > places:  # slower: some steps copy one into another's place
            _log.warning("engine.adapters_by_turns", adapters=len(self._adapters), places=places)
        return AdapterView(self, adapter, manifest, cold=False)

    def remove(self, adapter: _Adapter) -> None:
        """Unload an adapter without prompts in flight; after the last one the engine closes."""
        self._adapters.discard(adapter)
        if not self._adapters:
            self.close()
        elif adapter.lora is not None and not self._closed and not self._llm.errored:
            removed = self._while_alive(self._llm.remove_lora(adapter.lora.lora_int_id))
            asyncio.run_coroutine_threadsafe(removed, self._loop).result(_LOAD_S)

    def answer(self, adapter: _Adapter, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future aborts it in the engine."""
        if problem := self._problem(adapter.manifest, prompt_ids):
            refused: Future[Answer] = Future()
            refused.set_exception(MessageRejected("engine_rejected", problem))
            return refused
        return asyncio.run_coroutine_threadsafe(self._answer(adapter, list(prompt_ids)), self._loop)

    def check_health(self) -> None:
        """Raise EngineDied if the engine is closed or its processes are gone."""
        if self._closed:
            raise EngineDied("the engine is closed")
        llm = self._llm
        if llm is None or llm.errored:
            raise self._died()

    def close(self) -> None:
        """Abort requests in flight, stop the processes and wait until they are gone."""
        if self._closed:
            return
        self._closed = True  # first, so that other threads submit nothing more
        atexit.unregister(self.close)
        while not self._start_up.done():  # closed while starting, which ends with its processes
            self._processes.kill()
            time.sleep(0.1)
        self._processes.note_alive()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._processes.wait_until_gone()

    def _died(self) -> EngineDied:
        """Return the error for missing processes, with the reason if known."""
        number = self._processes.killed_by()
        if number is None:
            return EngineDied("the engine's processes are gone; see vLLM's log on stderr")
        why = f"the engine's processes are gone: killed by {signal.Signals(number).name}"
        return EngineDied(f"{why}; {_OUT_OF_MEMORY}" if number == signal.SIGKILL else why)

    def _describe(self, manifest: Manifest, adapter: Path | None, priority: int = 0) -> _Adapter:
        from vllm.lora.request import LoRARequest

        lora = None
        if adapter is not None:
            lora = LoRARequest(manifest.digest, next(self._lora_numbers), str(adapter))
        branches = find_branches(manifest.codes.values())
        params = {branch: request_params(branch.tokens) for branch in branches}
        return _Adapter(manifest, params, lora, priority)

    def _misfit(self, manifest: Manifest) -> str | None:
        """Return the requirement of an adapter that this engine was not started for, or None."""
        model, lora = self._config.model_config, self._config.lora_config
        need = manifest.prompt.max_prompt_tokens + answer_tokens(manifest)
        if lora is None:
            return "this engine serves a merged adapter and cannot load others"
        if manifest.kind != "lora-code" or manifest.lora is None:
            return f"is of kind {manifest.kind!r}, which this engine does not serve"
        if manifest.lora.rank > lora.max_lora_rank:
            return f"is of rank {manifest.lora.rank} and the engine allows {lora.max_lora_rank}"
        if need > model.max_model_len:
            return f"needs {need} tokens a message and the engine allows {model.max_model_len}"
        return None

    def _problem(self, manifest: Manifest, prompt_ids: Sequence[int]) -> str | None:
        # vLLM does not check token ids, and an invalid one kills all its processes.
        longest = manifest.prompt.max_prompt_tokens
        if not 0 < len(prompt_ids) <= longest:
            return f"a prompt of {len(prompt_ids)} tokens; allowed are 1 to {longest}"
        if min(prompt_ids) < 0 or max(prompt_ids) >= self._vocabulary:
            return "a token id that the model does not have"
        return None

    def _run_loop(self) -> None:
        # At Ctrl-C in a terminal the engine's processes would stop before the worker has finished
        # the work in flight. They install a handler, but they inherit this mask, and a blocked
        # signal is never handled. Python's resource tracker must be started first: starting it
        # unblocks the signal in the thread that does.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _start(self, first: _Adapter) -> None:
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            with no_warnings(), starting_processes(self._engine_args):
                llm = AsyncLLM.from_vllm_config(
                    self._config, disable_log_stats=not self._statistics
                )
        except Exception as error:
            raise EngineDied(f"the engine did not start: {error}") from error
        self._llm = llm
        self._processes.freeze()
        # Otherwise the first prompts would ask for it, and wait for ever if the core has died.
        await self._while_alive(llm.get_supported_tasks())
        if first.lora is not None:
            await self._load(first)

    async def _load(self, adapter: _Adapter) -> None:
        try:
            await self._while_alive(self._llm.add_lora(adapter.lora))
        except EngineDied:
            raise
        except Exception as error:
            if self._llm.errored:
                raise self._died() from error
            raise AdapterRefused(adapter.lora.lora_path, f"vLLM cannot load it: {error}") from error

    async def _while_alive(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return the core's answer to a method call. Raises EngineDied: when a core dies, vLLM
        fails its prompts, but leaves such calls unanswered."""
        answer = asyncio.ensure_future(call)
        while not answer.done():
            await asyncio.wait({answer}, timeout=_CALL_POLL_S)
            if not answer.done() and self._llm.errored:
                answer.cancel()
                raise self._died()
        return answer.result()

    async def _answer(self, adapter: _Adapter, prompt_ids: list[int]) -> Answer:
        from vllm.exceptions import VLLMError

        task = asyncio.current_task()
        self._answers.add(task)
        try:
            # One after the other: by then the prefix cache has nearly all of a second request.
            walk = CodeWalk(adapter.manifest.codes, tuple(adapter.params))
            while (branch := walk.next()) is not None:
                params, ids = adapter.params[branch], [*prompt_ids, *branch.path]
                found = [await self._ask(adapter, ids, asked) for asked in params]
                walk.add(branch, read_logprobs(params, found))
            return CodeScores(walk.scores())
        except asyncio.CancelledError:
            if self._closed:
                raise EngineDied("the engine was closed") from None
            raise
        except InvalidScores as error:
            raise MessageRejected("invalid_answer", str(error)) from None
        except (VLLMError, ValueError) as error:
            if self._llm.errored:
                raise self._died() from error
            # The error's text may quote the prompt; its type does not.
            raise MessageRejected("engine_rejected", type(error).__name__) from None
        finally:
            self._answers.discard(task)

    async def _ask(self, adapter: _Adapter, prompt_ids: list[int], params: Any) -> Any:
        """Return vLLM's completion for one request."""
        from vllm.inputs import tokens_input

        last: Any = None
        async for output in self._llm.generate(
            tokens_input(prompt_ids),
            params,
            str(next(self._numbers)),
            lora_request=adapter.lora,
            priority=adapter.priority,
        ):
            last = output
        return last.outputs[0]

    async def _stop(self) -> None:
        answers = [task for task in self._answers if task is not None]
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        if self._llm is None:
            return
        self._llm.shutdown(timeout=_SHUTDOWN_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for one in rest:
            one.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if (context := client_context(self._llm)) is not None:
            await destroy_context(context, _CONTEXT_S)
        self._llm = None


class AdapterView:
    """See ``worker.engine.port.Engine``: one adapter of a ``VllmEngine``. ``close`` unloads this
    adapter; the engine closes with its last one."""

    def __init__(
        self, host: VllmEngine, adapter: _Adapter, manifest: Manifest, *, cold: bool
    ) -> None:
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
        """Answer ``prompts``; in a cold engine also artificial ones of many lengths and batch
        sizes, because kernels are built when a shape first occurs. Raises EngineDied if an answer
        fails."""
        rounds = warm_up_rounds(self._manifest, prompts) if self._cold else [[p] for p in prompts]
        for batch in rounds:
            for future in [self.submit(one) for one in batch]:
                try:
                    future.result()
                except MessageRejected as error:
                    raise EngineDied(f"the engine rejects a warm-up prompt: {error}") from error

    def check_health(self) -> None:
        """Raise EngineDied if this adapter is unloaded or its engine is gone."""
        self.host.check_health()
        if self._closed:
            raise EngineDied("this adapter is unloaded")

    def close(self) -> None:
        """Unload this adapter, and close the engine if it was the last. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.host.remove(self._adapter)


def warm_up_rounds(
    manifest: Manifest, prompts: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, ...]]]:
    """Yield batches of prompts to answer together: ``prompts`` first, then artificial ones.

    Those have the lengths of support messages, up to the longest allowed, and are cut from the
    golden prompts at different places each time: otherwise the prefix cache would answer and no
    kernel would be built. One round is enough: messages after it take as long as after two.
    """
    spec = manifest.prompt
    first, last = len(spec.prefix_ids), len(spec.suffix_ids)
    words = [
        token for golden in manifest.golden for token in golden.ids[first : len(golden.ids) - last]
    ]
    lengths = [min(length, spec.max_message_tokens) for length in _MESSAGE_TOKENS]
    number = itertools.count(1)

    def made_up(length: int) -> tuple[int, ...]:
        start = next(number) * 7 % len(words)
        message = itertools.islice(itertools.cycle(words), start, start + length)
        return (*spec.prefix_ids, *message, *spec.suffix_ids)

    yield from ([tuple(prompt)] for prompt in prompts)
    for batch in _BATCHES:
        yield [made_up(lengths[index % len(lengths)]) for index in range(batch)]
    yield [made_up(spec.max_message_tokens)]


def read_logprobs(params: Sequence[Any], completions: Sequence[Any]) -> dict[int, float]:
    """Return the next token's log-probabilities, by token id, from vLLM's completions, one for each
    request in ``params``. Raises EngineDied and MessageRejected."""
    for completion in completions:
        if completion.finish_reason == "abort":
            raise EngineDied("the engine is shutting down")
        if completion.finish_reason == "error":
            raise MessageRejected("engine_rejected", "the engine failed on this prompt")
    scores: dict[int, float] = {}
    for asked, completion in zip(params, completions, strict=True):
        found = completion.logprobs[0]
        ids = asked.logprob_token_ids
        scores |= {one: float(found[one].logprob) for one in ids if one in found}
    return scores


async def destroy_context(context: Any, within_s: float) -> bool:
    """Close a ``zmq.Context`` and its sockets, with a time limit; return whether it has ended.

    It runs on a thread because it blocks until every socket is closed, and a socket may be closed
    by a callback that waits for this loop. The limit is there because libzmq 4.3.5 sometimes never
    finishes if a peer is killed while data is sent to it (2 of 5,500 kills of a small process, and
    once with an engine). Its threads are then abandoned: the process is about to end anyway.
    """

    def destroy() -> None:
        context.destroy(linger=0)

    thread = threading.Thread(target=destroy, name="zmq-end", daemon=True)
    thread.start()
    end = time.monotonic() + within_s
    while thread.is_alive():
        if time.monotonic() > end:
            logger.warning("the engine's sockets did not close within %s s: abandoned", within_s)
            return False
        await asyncio.sleep(_POLL_S)
    return True
