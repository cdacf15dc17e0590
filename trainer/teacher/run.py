"""Ask a teacher about messages, several at a time, until all are decided or the budget is spent.

Everything that must survive a kill is in the ledger. This module holds only what may be lost: who
is asking what at the moment, and how long the server wants everybody to wait.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from trainer.errors import BadInput
from trainer.teacher.client import Failure, Form, Reply, Teacher
from trainer.teacher.ledger import Answer, Decision, Ended, Ledger, Outcome
from trainer.teacher.prices import Price
from trainer.teacher.prompt import (
    REJECTED,
    TRIES,
    Prompt,
    Question,
    decide,
)

LONGEST_WAIT_S = 900.0
"""A server that asks for a longer wait ends the run: it can be started again then."""

_MOST_FAILURES = 6
"""Failures of one message in one run, without those that only ask to wait."""
_MOST_IN_A_ROW = 50
_MOST_VOID = 20
"""Answers that are no label, before the first that is one: the model cannot do this."""
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked, and for how much. ``prompt`` makes the request for a question's vote.
    ``votes`` is the most for one question, ``tries`` how often a vote is asked for while the answer
    cannot be used."""

    prompt: Callable[[Question, int], Prompt]
    questions: Sequence[Question]
    votes: int
    concurrency: int
    price: Price
    tries: int = TRIES

    def bound(self, prompt: Prompt, answer_tokens: int) -> int:
        """Return the most that a request with this prompt can cost, in picodollars."""
        return self.price.cost(prompt.most_tokens, answer_tokens)


@dataclass(slots=True)
class Ran:
    """How a run ended. ``why`` is None if every message was asked about, else the reason in
    words; ``form`` is how requests were written in the end."""

    why: str | None = None
    interrupted: bool = False
    given_up: int = 0
    requests: int = 0
    seconds: float = 0.0
    form: Form = field(default_factory=Form)


class _Stop(Exception):
    """The run cannot go on; the text says why."""


class _Stopping(Exception):
    """Another part of the run has stopped it."""


def run(job: Job, teacher: Teacher, ledger: Ledger, on_decided: Callable[[int], object]) -> Ran:
    """Ask until every question has a decision in the ledger, or the run must end.

    SIGINT and SIGTERM end it after the requests in flight. Raises BadInput if the endpoint refuses
    every form of request.
    """
    return asyncio.run(_Run(job, teacher, ledger, on_decided).run())


class _Run:
    def __init__(
        self, job: Job, teacher: Teacher, ledger: Ledger, on_decided: Callable[[int], object]
    ) -> None:
        self._job, self._teacher, self._ledger = job, teacher, ledger
        self._on_decided = on_decided
        self._answers = ledger.answers()
        decided = ledger.decisions()
        self._left = [each for each in job.questions if each.id not in decided]
        self._next = iter(self._left)
        self._ran = Ran()
        self._stopping = False
        self._proven = False  # whether the endpoint has answered in this form
        self._not_before = 0.0
        self._failures_in_a_row = 0
        self._any_valid, self._void = bool(self._answers or decided), 0
        self._in_flight = 0
        self._room: asyncio.Condition | None = None

    async def run(self) -> Ran:
        began = time.monotonic()
        self._room = asyncio.Condition()
        self._heed_signals()
        try:
            # One alone at first: it finds the form that this endpoint takes, and a server that
            # charges for more tokens than were allowed is noticed with one request in flight.
            await self._work(until_proven=True)
            workers = [self._work() for _ in range(self._job.concurrency)]
            for ended in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(ended, BaseException):
                    raise ended
        except _Stop as stop:
            self._ran.why = str(stop)
        finally:
            await self._teacher.close()
        if self._stopping and self._ran.why is None:
            self._ran.why, self._ran.interrupted = "interrupted", True
        elif self._ran.given_up and self._ran.why is None:
            self._ran.why = f"{self._ran.given_up} messages got no answer"
        self._ran.seconds = time.monotonic() - began
        return self._ran

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self._stopping = True
            loop.remove_signal_handler(number)  # a second one ends the process at once

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stop, number)
            except (RuntimeError, ValueError):
                return  # not in the main thread: its owner handles signals

    async def _work(self, *, until_proven: bool = False) -> None:
        """Take questions until none is left. Raises _Stop, and then no worker starts another."""
        try:
            while not self._stopping and not (until_proven and self._proven):
                question = next(self._next, None)
                if question is None:
                    return
                await self._decide(question)
        except _Stopping:
            return
        except BaseException:
            self._stopping = True
            raise

    async def _decide(self, question: Question) -> None:
        answers = self._answers.get(question.id, [])
        failures = 0
        while not self._stopping:
            vote = sum(each.outcome in {"label", "none"} for each in answers)
            prompt = self._job.prompt(question, vote)
            result = await self._ask(question, prompt, vote, answers)
            if result is True:
                self._on_decided(1)
                return
            # A server that only asks to wait says nothing about this message.
            if isinstance(result, Failure) and result.status != 429:
                failures += 1
                if failures >= _MOST_FAILURES:
                    self._ran.given_up += 1
                    return

    async def _ask(
        self, question: Question, prompt: Prompt, vote: int, answers: list[Answer]
    ) -> bool | Failure:
        """Send one request and write down what came. Returns whether the question is decided."""
        await self._pause()
        request = await self._reserve(question, prompt, vote)
        self._ran.requests += 1
        decision: Decision | None = None
        try:
            sent = time.monotonic()
            came = await self._teacher.ask(prompt, self._ran.form)
            if isinstance(came, Reply):
                ended = self._read(came, prompt, time.monotonic() - sent)
                answers.append(Answer(ended.outcome, ended.label))
                decision = decide(answers, self._job.votes, self._job.tries)
            else:
                ended = Ended(
                    "rejected" if came.kind == "rejected" else "failed",
                    cost=0 if came.free else None,
                    status=came.status,
                )
                # Before the endpoint is proven, a refusal may be about the form.
                if came.kind == "rejected" and self._is_about_the_message(came):
                    decision = replace(_count(answers), outcome=REJECTED)
            self._ledger.end(request, ended, decision)
        finally:
            await self._landed()
        if isinstance(came, Reply):
            self._proven, self._failures_in_a_row = True, 0
            self._refuse_nonsense(came, answers[-1])
            self._wait_for_all(came.wait_s)
        else:
            await self._failed(came, decided=decision is not None)
            if decision is None:
                return came
        return decision is not None

    def _read(self, reply: Reply, prompt: Prompt, seconds: float) -> Ended:
        given = prompt.read(reply.content)
        outcome: Outcome = given.outcome  # type: ignore[assignment]
        if reply.refused:
            outcome, given = "refused", Answer("refused")
        cost = None
        if reply.prompt_tokens is not None and reply.answer_tokens is not None:
            cost = self._job.price.cost(reply.prompt_tokens, reply.answer_tokens)
        return Ended(
            outcome,
            cost,
            seconds=seconds,
            prompt_tokens=reply.prompt_tokens,
            answer_tokens=reply.answer_tokens,
            answered_by=reply.model,
            answer=reply.content,
            label=given.label,
        )

    def _refuse_nonsense(self, reply: Reply, answer: Answer) -> None:
        """Raise _Stop before the budget is spent on a model that never names a label."""
        self._any_valid |= answer.outcome in {"label", "none"}
        self._void += not self._any_valid
        if self._void >= _MOST_VOID:
            hint = "use another model"
            if reply.cut:
                hint = (
                    f"they end after {self._teacher.answer_tokens} tokens; a model that reasons "
                    "first needs more: give --answer-tokens 2000 and another --out"
                )
            raise _Stop(f"the first {self._void} answers are not labels: {hint}")

    def _is_about_the_message(self, failure: Failure) -> bool:
        # One that names the content, or its size, would refuse it in any other form too.
        return self._proven or "content" in (failure.code or "") or failure.status == 413

    async def _failed(self, failure: Failure, *, decided: bool) -> None:
        """Wait, try another form, or raise _Stop or BadInput."""
        self._failures_in_a_row += 1
        if failure.kind == "stop":
            raise _Stop(f"the endpoint refuses: {failure.words}: {_remedy(failure.status)}")
        if self._failures_in_a_row >= _MOST_IN_A_ROW:
            raise _Stop(
                f"the endpoint failed {_MOST_IN_A_ROW} times in a row, last with {failure.words}"
            )
        if failure.kind == "rejected" and not decided:
            form = self._ran.form.simpler(failure)
            if form is None:
                raise BadInput(
                    f"the endpoint refuses every form of request: {failure.words}: is it an "
                    "OpenAI-compatible /v1 address, and --model a chat model of it?"
                )
            self._ran.form = form
        elif failure.kind == "retry":
            if failure.wait_s is not None:
                self._wait_for_all(failure.wait_s)
                return
            backoff = min(
                _LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(self._failures_in_a_row - 1, 10)
            )
            await self._sleep(backoff * (0.5 + random.random() / 2))  # noqa: S311

    def _wait_for_all(self, seconds: float) -> None:
        if seconds > LONGEST_WAIT_S:
            raise _Stop(f"the endpoint asks to wait for {seconds / 60:,.0f} minutes")
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    async def _pause(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0 and not self._stopping:
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """Sleep in pieces, so that an interruption is heeded."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.2))

    async def _reserve(self, question: Question, prompt: Prompt, vote: int) -> int:
        """Reserve the request's bound; wait for room while requests are in flight, since most cost
        less than their bounds. Raises _Stop if the budget is spent, or the run ends."""
        assert self._room is not None
        bound = self._job.bound(prompt, self._teacher.answer_tokens)
        async with self._room:
            while True:
                if self._stopping:
                    raise _Stopping
                request = self._ledger.reserve(
                    question.id,
                    vote,
                    prompt_sha256=prompt.sha256,
                    model=self._teacher.model,
                    price=self._job.price,
                    bound=bound,
                )
                if request is not None:
                    self._in_flight += 1
                    return request
                if not self._in_flight:
                    raise _Stop("the budget has no room for another request")
                await self._room.wait()

    async def _landed(self) -> None:
        assert self._room is not None
        async with self._room:
            self._in_flight -= 1
            self._room.notify_all()


def _count(answers: Sequence[Answer]) -> Decision:
    """Return the votes so far as a decision, whatever they say."""
    named = [each.label for each in answers if each.label is not None]
    best = max(named, key=named.count, default=None)
    valid = sum(each.outcome in {"label", "none"} for each in answers)
    return Decision("", best, named.count(best) if best is not None else 0, valid)


def _remedy(status: int | None) -> str:
    if status in {401, 403}:
        return "check the key (--key-env)"
    if status in {402, 429}:
        return "the account has no credit left"
    if status == 404:
        return "check the address and --model"
    return "check the address: is it the final one of an OpenAI-compatible /v1?"
