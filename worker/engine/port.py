"""The engine port: what the worker needs of an engine, and what its answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

from worker.contract.errors import InvalidScores
from worker.contract.manifest import Manifest
from worker.contract.scoring import (
    Decision,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
)
from worker.errors import MessageRejected


@dataclass(frozen=True, slots=True)
class CodeScores:
    """Raw log-probabilities (natural log) of the label codes as next token, by token id."""

    logprobs: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """An answer in words and the sum of its tokens' raw log-probabilities."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class HeadLogits:
    """Raw logits of a head's outputs, in their order."""

    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StageDecisions:
    """What the stages of a cascade thought that were asked, in their order: the last one answered.

    ``seconds`` is how long each took; ``truncated`` whether the message was shortened for the one
    that answered.
    """

    decisions: tuple[Decision, ...]
    seconds: tuple[float, ...]
    truncated: bool


Answer = CodeScores | ChoiceAnswer | HeadLogits | StageDecisions


@dataclass(frozen=True, slots=True)
class MessagePrompt(Sequence[int]):
    """A prompt's token ids with the message they were made of: what a cascade is given.

    The ids are those of its first stage, which may have ``truncated`` the message; another stage
    makes its own of ``text``.
    """

    ids: tuple[int, ...]
    text: str
    truncated: bool

    def __len__(self) -> int:
        """Return how many tokens the first stage's prompt has."""
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[int, ...]: ...

    def __getitem__(self, at: int | slice) -> int | tuple[int, ...]:
        """Return tokens of the first stage's prompt."""
        return self.ids[at]


class Engine(Protocol):
    """Answers prompts, many at a time, in any order.

    ``submit`` may be called from one thread while futures complete on another. A future fails
    with MessageRejected when the fault is that one prompt's, and with EngineDied when the engine
    as a whole is gone; cancelling a future gives the prompt's place up. No other method is
    called while prompts are in flight, but ``check_health``, which raises EngineDied and may be
    called from any thread.
    """

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it computes in: ``fp32``, ``bf16``, ``fp16``, ``int8`` or vLLM's name of a
        quantization. One name, or of a cascade one for each stage."""
        ...

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt (token ids). Does not block. Raises EngineDied."""
        ...

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Answer a few prompts, so that kernels and caches are ready. Blocks."""
        ...

    def check_health(self) -> None:
        """Return if the engine can answer; raise EngineDied if not. Does not block."""
        ...

    def close(self) -> None:
        """Shut the engine down and wait until its processes are gone. Safe to call twice."""
        ...


@runtime_checkable
class SelfPaced(Protocol):
    """An engine of several (a cascade), each with a window, deadlines and a watch of its own.

    It fails the future of an overdue prompt with MessageRejected (``deadline_exceeded``), and its
    ``check_health`` raises EngineDied also when one of them hangs.
    """

    @property
    def window(self) -> int:
        """How many prompts the engine that is asked first may be given now."""
        ...

    def has_room(self) -> bool:
        """Tell whether that engine has room for another prompt. Does not block."""
        ...


class AdapterLoader(Protocol):
    """Brings more adapters up next to the one that the engine was opened with."""

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Return the engine as this adapter sees it, not yet warm. Blocks: seconds, or minutes.

        ``adapter`` is verified already. ``background``: its prompts give way to the others',
        where the engine can. Closing what is returned unloads it and nothing else. Raises
        AdapterRefused, SettingsError or EngineDied, and then leaves nothing behind.
        """
        ...


@dataclass(frozen=True, slots=True)
class Declined:
    """An adapter that a worker could not start with, and why (no message text)."""

    digest: str
    problem: str


def decide(answer: Answer, manifest: Manifest) -> Decision:
    """Turn an answer into a label. Raises MessageRejected when it is none."""
    temperature = manifest.calibration.temperature
    try:
        if isinstance(answer, StageDecisions):
            *earlier, last = answer.decisions
            return replace(last, earlier=tuple(earlier))
        if isinstance(answer, CodeScores):
            return decide_from_codes(answer.logprobs, manifest.codes, temperature)
        if isinstance(answer, HeadLogits):
            return decide_from_logits(
                answer.logits, manifest.head, manifest.taxonomy.names, temperature
            )
        return decide_from_choice(answer.text, answer.logprob, manifest.taxonomy.names)
    except InvalidScores as error:
        raise MessageRejected("invalid_answer", str(error)) from error
