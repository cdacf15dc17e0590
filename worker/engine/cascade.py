"""A cascade behind the engine port: what a stage is not sure of goes to the next one.

To the loop it is one engine: a prompt has one future, one deadline, and one place in the window.
Each stage is watched by itself for silence, since another that goes on answering would hide it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial

from worker.contract import CascadeStage, Decision, Manifest, build_prompt
from worker.contract.tokens import Encode
from worker.engine.answers import decide
from worker.engine.port import Answer, Engine, MessagePrompt, StageDecisions
from worker.engine.silence import SilenceWatch
from worker.errors import EngineDied, MessageRejected


@dataclass(frozen=True, slots=True)
class OpenStage:
    """A stage that is up: what the cascade's manifest says of it, its own, and its engine."""

    rule: CascadeStage
    manifest: Manifest
    encode_plain: Encode
    engine: Engine


@dataclass(slots=True, eq=False)
class _Asked:
    """One message on its way: what was thought of it so far, and which prompt is out."""

    message: MessagePrompt | None
    future: Future[Answer] = field(default_factory=Future)
    decisions: tuple[Decision, ...] = ()
    seconds: tuple[float, ...] = ()
    truncated: bool = False
    inner: Future[Answer] | None = None


class CascadeEngine:
    """See ``worker.engine.port.Engine``. It is given ``MessagePrompt``; a prompt without its
    message, as the golden ones are, is answered by the first stage alone.

    ``silence_s``: a stage that has something and answers nothing, for so long and then, when asked,
    for so long again, has died; None: that is not watched.
    """

    def __init__(
        self,
        stages: Sequence[OpenStage],
        silence_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stages = [_WatchedStage(stage, silence_s) for stage in stages]
        self._clock = clock

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt. Cancelling the future calls off the stage that has it."""
        message = prompt_ids if isinstance(prompt_ids, MessagePrompt) else None
        asked = _Asked(message, truncated=message.truncated if message else False)
        self._ask(asked, 0, message.ids if message else prompt_ids)
        asked.future.add_done_callback(lambda future: _call_off(asked, future))
        return asked.future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Have each stage answer its own golden prompts, the first one also ``prompts``."""
        for at, stage in enumerate(self._stages):
            golden = [prompt.ids for prompt in stage.opened.manifest.golden]
            stage.opened.engine.warm_up([*prompts, *golden] if at == 0 else golden)

    def check_health(self) -> None:
        """Raise EngineDied when a stage is gone, or has fallen silent."""
        for at, stage in enumerate(self._stages, 1):
            try:
                stage.check(self._clock())
            except EngineDied as error:
                raise EngineDied(f"stage {at} of the cascade: {error}") from error

    def close(self) -> None:
        """Shut all stages down."""
        for stage in self._stages:
            stage.opened.engine.close()

    def _ask(self, asked: _Asked, at: int, prompt: Sequence[int]) -> None:
        """Give a prompt to a stage. Raises EngineDied."""
        stage, since = self._stages[at], self._clock()
        inner = stage.opened.engine.submit(prompt)
        stage.given(inner, since)
        asked.inner = inner
        inner.add_done_callback(partial(self._take, asked, at, since))
        if asked.future.cancelled():  # meanwhile, by another thread
            inner.cancel()

    def _take(self, asked: _Asked, at: int, since: float, inner: Future[Answer]) -> None:
        """Take in a stage's answer, on whatever thread it comes: end it, or ask the next stage."""
        now, stage = self._clock(), self._stages[at]
        stage.came(inner, now)
        try:
            decision = decide(inner.result(timeout=0), stage.opened.manifest)
            asked.decisions += (decision,)
            asked.seconds += (now - since,)
            if stage.opened.rule.is_sure(decision) or asked.message is None:
                _finish(asked)
            elif not asked.future.done():
                self._ask(asked, at + 1, self._next_prompt(asked, asked.message, at + 1))
        except CancelledError:
            asked.future.cancel()
        except Exception as error:  # noqa: BLE001 - raised again where the future is read
            if asked.future.set_running_or_notify_cancel():
                asked.future.set_exception(error)

    def _next_prompt(self, asked: _Asked, message: MessagePrompt, at: int) -> Sequence[int]:
        opened = self._stages[at].opened
        prompt = build_prompt(opened.manifest.prompt, message.text, opened.encode_plain)
        if prompt is None:
            raise MessageRejected("empty_message", "nothing printable is in the message")
        asked.truncated = prompt.truncated
        return prompt.ids


class _WatchedStage:
    """A stage and what it has been given and not answered, oldest first. For any thread."""

    def __init__(self, opened: OpenStage, silence_s: float | None) -> None:
        self.opened = opened
        self._lock = threading.Lock()
        self._held: dict[Future[Answer], float] = {}
        golden = opened.manifest.golden[0].ids
        self._watch: SilenceWatch | None = None
        if silence_s is not None:
            self._watch = SilenceWatch(lambda: opened.engine.submit(golden), silence_s)

    def given(self, future: Future[Answer], since: float) -> None:
        """It has this prompt."""
        with self._lock:
            self._held[future] = since

    def came(self, future: Future[Answer], now: float) -> None:
        """It has answered this prompt, or that was called off."""
        with self._lock:
            self._held.pop(future, None)
            if self._watch is not None and not future.cancelled():
                self._watch.answered(now)

    def check(self, now: float) -> None:
        """Raise EngineDied when it is gone or silent."""
        self.opened.engine.check_health()
        if self._watch is None:
            return
        with self._lock:
            waits_from = next(iter(self._held.values()), None)
            died = self._watch.find_death(now, waits_from, len(self._held))
        if isinstance(died, EngineDied):
            raise died


def _finish(asked: _Asked) -> None:
    if asked.future.set_running_or_notify_cancel():
        asked.future.set_result(StageDecisions(asked.decisions, asked.seconds, asked.truncated))


def _call_off(asked: _Asked, future: Future[Answer]) -> None:
    if future.cancelled() and asked.inner is not None:
        asked.inner.cancel()
