"""A cascade behind the engine port: messages that one stage is not sure of go to the next.

For the loop it is one engine: a prompt has one future. Each stage is an engine with its own window,
deadline and check for hangs (``worker.engine.pacing``). A prompt for a full stage waits in front of
it, and its deadline there begins when the stage gets it: a slow last stage makes messages wait, but
never turns them into dead letters.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial

from worker.contract import CascadeStage, Decision, Manifest, build_prompt
from worker.contract.errors import MessageRejected
from worker.contract.prompt import Encode
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy, Lane
from worker.engine.port import Answer, Engine, MessagePrompt, StageDecisions, decide
from worker.errors import EngineDied


@dataclass(frozen=True, slots=True)
class OpenStage:
    """A running stage: its entry in the cascade's manifest, its own manifest, and its engine."""

    rule: CascadeStage
    manifest: Manifest
    encode_plain: Encode
    engine: Engine


@dataclass(slots=True, eq=False)
class _Request:
    """One message: the decisions so far, and its current stage's future (``inner``)."""

    message: MessagePrompt | None
    future: Future[Answer] = field(default_factory=Future)
    decisions: tuple[Decision, ...] = ()
    seconds: tuple[float, ...] = ()
    truncated: bool = False
    inner: Future[Answer] | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def end(self, result: StageDecisions | Exception) -> None:
        """Settle the future, unless it is settled. From any thread."""
        if not self._ending.acquire(blocking=False):
            return  # another thread was first: an answer and the check for overdue requests race
        if self.future.set_running_or_notify_cancel():
            if isinstance(result, Exception):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


class CascadeEngine:
    """See ``Engine``. It enforces the windows and deadlines of its stages itself.

    Submit ``MessagePrompt``s; a prompt without a message, such as a golden one, is answered by the
    first stage alone.
    """

    def __init__(
        self,
        stages: Sequence[OpenStage],
        policy: AdmissionPolicy = UNBOUNDED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.precisions = tuple(name for stage in stages for name in stage.engine.precisions)
        self._stages = [_Stage(stage, policy, clock) for stage in stages]
        self._clock = clock

    @property
    def window(self) -> int:
        """The current limit on prompts in the first stage."""
        return self._stages[0].lane.window.limit

    def has_room(self) -> bool:
        """Whether the first stage has room for another prompt."""
        return self._stages[0].has_room()

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future cancels it in its current stage."""
        message = prompt_ids if isinstance(prompt_ids, MessagePrompt) else None
        request = _Request(message, truncated=message.truncated if message else False)
        self._ask(request, 0, message.ids if message else prompt_ids)
        request.future.add_done_callback(lambda future: _cancel_inner(request, future))
        return request.future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Warm up each stage with its golden prompts, the first one also with ``prompts``."""
        for at, stage in enumerate(self._stages):
            golden = [prompt.ids for prompt in stage.opened.manifest.golden]
            stage.opened.engine.warm_up([*prompts, *golden] if at == 0 else golden)

    def check_health(self) -> None:
        """Fail overdue requests; raise EngineDied if a stage is gone or hangs.

        A stage that was found dead stays dead: both the loop and the health endpoint call this, and
        both must see it.
        """
        for at, stage in enumerate(self._stages, 1):
            try:
                stage.check()
            except EngineDied as error:
                raise EngineDied(f"stage {at} of the cascade: {error}") from error

    def close(self) -> None:
        """Shut down all stages."""
        for stage in self._stages:
            stage.opened.engine.close()

    def _ask(self, request: _Request, at: int, prompt: Sequence[int]) -> None:
        """Submit a prompt to a stage, or queue it there. Raises EngineDied."""
        if self._stages[at].take_place(request, prompt):
            self._submit(request, at, prompt)

    def _submit(self, request: _Request, at: int, prompt: Sequence[int]) -> None:
        stage, since = self._stages[at], self._clock()
        try:
            inner = stage.opened.engine.submit(prompt)
        except EngineDied:
            stage.remove(request)
            raise
        request.inner = inner
        inner.add_done_callback(partial(self._take, request, at, since))
        if request.future.done():  # cancelled by another thread before ``inner`` was set
            inner.cancel()

    def _take(self, request: _Request, at: int, since: float, inner: Future[Answer]) -> None:
        """Handle a stage's answer, on the stage's thread: settle the request, or ask the next
        stage."""
        stage, now = self._stages[at], self._clock()
        stage.answered(request, since, now, real=not inner.cancelled())
        try:
            decision = decide(inner.result(timeout=0), stage.opened.manifest)
            request.decisions += (decision,)
            request.seconds += (now - since,)
            if stage.opened.rule.is_sure(decision) or request.message is None:
                request.end(StageDecisions(request.decisions, request.seconds, request.truncated))
            elif not request.future.done():
                self._ask(request, at + 1, self._next_prompt(request, request.message, at + 1))
        except CancelledError:
            request.future.cancel()
        except Exception as error:  # noqa: BLE001 - raised again where the future is read
            request.end(error)
        self._admit(at)

    def _admit(self, at: int) -> None:
        """Submit queued requests to a stage while it has room."""
        while (waiting := self._stages[at].next_waiting()) is not None:
            request, prompt = waiting
            try:
                self._submit(request, at, prompt)
            except EngineDied as error:
                request.end(error)

    def _next_prompt(self, request: _Request, message: MessagePrompt, at: int) -> Sequence[int]:
        opened = self._stages[at].opened
        prompt = build_prompt(opened.manifest.prompt, message.text, opened.encode_plain)
        if prompt is None:
            raise MessageRejected("empty_message", "the message has nothing printable")
        request.truncated = prompt.truncated
        return prompt.ids


class _Stage:
    """A stage, the requests in its engine, and those queued for it. Thread-safe."""

    def __init__(
        self, opened: OpenStage, policy: AdmissionPolicy, clock: Callable[[], float]
    ) -> None:
        self.opened = opened
        golden = opened.manifest.golden[0].ids
        self.lane: Lane[_Request] = Lane(lambda: opened.engine.submit(golden), policy, clock())
        self._clock = clock
        self._waiting: deque[tuple[_Request, Sequence[int]]] = deque()
        self._death: EngineDied | None = None
        self._lock = threading.Lock()

    def has_room(self) -> bool:
        """Whether the engine has room for another request."""
        with self._lock:
            return not self._waiting and self.lane.window.has_room(len(self.lane))

    def take_place(self, request: _Request, prompt: Sequence[int]) -> bool:
        """Return whether the request got a place in the engine; otherwise it is queued."""
        with self._lock:
            if self._waiting or not self.lane.window.has_room(len(self.lane)):
                self._waiting.append((request, prompt))
                return False
            self.lane.give(request, self._clock())
            return True

    def next_waiting(self) -> tuple[_Request, Sequence[int]] | None:
        """Take the first queued request if there is room; skip settled ones."""
        with self._lock:
            while self._waiting and self._waiting[0][0].future.done():
                self._waiting.popleft()
            if not self._waiting or not self.lane.window.has_room(len(self.lane)):
                return None
            request, prompt = self._waiting.popleft()
            self.lane.give(request, self._clock())
            return request, prompt

    def answered(self, request: _Request, since: float, now: float, *, real: bool) -> None:
        """Note that the engine is done with a request; ``real``: it was answered rather than
        cancelled."""
        with self._lock:
            self.lane.remove(request)
            if real:
                self.lane.answered(since, now, now)

    def remove(self, request: _Request) -> None:
        """Note that a request could not be submitted."""
        with self._lock:
            self.lane.remove(request)

    def check(self) -> None:
        """Fail overdue requests. Raises EngineDied if the engine is gone or hangs."""
        self.opened.engine.check_health()
        now = self._clock()
        with self._lock:
            if self._death is None:
                self._death = self.lane.find_death(now, self.lane.oldest_at, len(self.lane))
            if self._death is not None:
                raise self._death
            overdue, why = self.lane.overdue(now), self.lane.overdue_detail
            for request in overdue:
                self.lane.remove(request)
        # Outside of the lock: ending a request runs its callbacks, which may come back here.
        for request in overdue:
            request.end(MessageRejected("deadline_exceeded", why))
            if request.inner is not None:
                request.inner.cancel()


def _cancel_inner(request: _Request, future: Future[Answer]) -> None:
    if future.cancelled() and request.inner is not None:
        request.inner.cancel()
