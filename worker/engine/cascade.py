"""A cascade behind the engine port: what one stage is not sure of goes to the next.

To the loop it is one engine: a prompt has one future. Each stage is an engine of its own, with its
own window, deadline and watch for silence (``worker.engine.pacing``). A prompt that finds no room
in a stage waits in front of it, and its deadline there begins when the stage is given it: a slow
last stage makes messages wait and never makes them dead letters.
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
from worker.contract.prompt import Encode
from worker.engine.pacing import UNBOUNDED, AdmissionPolicy, Lane
from worker.engine.port import Answer, Engine, MessagePrompt, StageDecisions, decide
from worker.errors import EngineDied, MessageRejected


@dataclass(frozen=True, slots=True)
class OpenStage:
    """A stage that is up: what the cascade's manifest says of it, its own, and its engine."""

    rule: CascadeStage
    manifest: Manifest
    encode_plain: Encode
    engine: Engine


@dataclass(slots=True, eq=False)
class _Request:
    """One message on its way: the decisions so far, and the prompt that a stage has of it."""

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
            return  # by another thread: the check for overdue ones and an answer may meet
        if self.future.set_running_or_notify_cancel():
            if isinstance(result, Exception):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


class CascadeEngine:
    """See ``Engine`` and ``SelfPaced``. It is given ``MessagePrompt``; a prompt without its
    message, as the golden ones are, is answered by the first stage alone.
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
        """How many prompts the first stage may be given now."""
        return self._stages[0].lane.window.limit

    def has_room(self) -> bool:
        """Tell whether the first stage has room for another prompt."""
        return self._stages[0].has_room()

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future calls off the stage that has it."""
        message = prompt_ids if isinstance(prompt_ids, MessagePrompt) else None
        request = _Request(message, truncated=message.truncated if message else False)
        self._ask(request, 0, message.ids if message else prompt_ids)
        request.future.add_done_callback(lambda future: _call_off(request, future))
        return request.future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Have each stage answer its own golden prompts, the first one also ``prompts``."""
        for at, stage in enumerate(self._stages):
            golden = [prompt.ids for prompt in stage.opened.manifest.golden]
            stage.opened.engine.warm_up([*prompts, *golden] if at == 0 else golden)

    def check_health(self) -> None:
        """Give up what is overdue; raise EngineDied when a stage is gone or answers nothing.

        A stage that was found dead stays dead, anyone who asks: the loop and a probe of the health
        endpoint both have to see it.
        """
        for at, stage in enumerate(self._stages, 1):
            try:
                stage.check()
            except EngineDied as error:
                raise EngineDied(f"stage {at} of the cascade: {error}") from error

    def close(self) -> None:
        """Shut all stages down."""
        for stage in self._stages:
            stage.opened.engine.close()

    def _ask(self, request: _Request, at: int, prompt: Sequence[int]) -> None:
        """Give a prompt to a stage, or have it wait for room there. Raises EngineDied."""
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
        if request.future.done():  # meanwhile, by another thread
            inner.cancel()

    def _take(self, request: _Request, at: int, since: float, inner: Future[Answer]) -> None:
        """Take in a stage's answer, on whatever thread it comes: end it, or ask the next stage."""
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
        """Give a stage what waits for it and has room now."""
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
            raise MessageRejected("empty_message", "nothing printable is in the message")
        request.truncated = prompt.truncated
        return prompt.ids


class _Stage:
    """A stage, the requests that its engine has, and those that wait for room. For any thread."""

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
        """Tell whether the engine may be given another request now."""
        with self._lock:
            return not self._waiting and self.lane.window.has_room(len(self.lane))

    def take_place(self, request: _Request, prompt: Sequence[int]) -> bool:
        """Give the request a place in the engine, or else put it at the end of the line."""
        with self._lock:
            if self._waiting or not self.lane.window.has_room(len(self.lane)):
                self._waiting.append((request, prompt))
                return False
            self.lane.give(request, self._clock())
            return True

    def next_waiting(self) -> tuple[_Request, Sequence[int]] | None:
        """Give the first request in line a place, if there is one; leave out what was given up."""
        with self._lock:
            while self._waiting and self._waiting[0][0].future.done():
                self._waiting.popleft()
            if not self._waiting or not self.lane.window.has_room(len(self.lane)):
                return None
            request, prompt = self._waiting.popleft()
            self.lane.give(request, self._clock())
            return request, prompt

    def answered(self, request: _Request, since: float, now: float, *, real: bool) -> None:
        """The engine is done with a request: by an answer, or because it was called off."""
        with self._lock:
            self.lane.remove(request)
            if real:
                self.lane.answered(since, now, now)

    def remove(self, request: _Request) -> None:
        """The engine could not be given this request."""
        with self._lock:
            self.lane.remove(request)

    def check(self) -> None:
        """Give up what is overdue. Raises EngineDied when the engine is gone or hangs."""
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
        for request in overdue:
            request.end(MessageRejected("deadline_exceeded", why))
            if request.inner is not None:
                request.inner.cancel()


def _call_off(request: _Request, future: Future[Answer]) -> None:
    if future.cancelled() and request.inner is not None:
        request.inner.cancel()
