"""The engine port: what the worker needs from an engine, and the kinds of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

from worker.contract.errors import InvalidScores, MessageRejected
from worker.contract.manifest import Manifest
from worker.contract.scoring import (
    Decision,
    decide_from_codes,
    decide_from_logits,
)


@dataclass(frozen=True, slots=True)
class CodeScores:
    """The raw log-probability (natural log) of each label's code as the answer."""

    logprobs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HeadLogits:
    """Raw logits of a head's outputs, in order."""

    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StageDecisions:
    """The decisions of a cascade's stages, in order, and the seconds that each took. The last one
    answered; ``truncated``: the message was shortened for it."""

    decisions: tuple[Decision, ...]
    seconds: tuple[float, ...]
    truncated: bool


Answer = CodeScores | HeadLogits | StageDecisions


@dataclass(frozen=True, slots=True)
class MessagePrompt(Sequence[int]):
    """A prompt for a cascade: the first stage's token ids, which may have ``truncated`` the
    message, with its text, from which later stages build their own prompts."""

    ids: tuple[int, ...]
    text: str
    truncated: bool

    def __len__(self) -> int:
        """Return the length of the first stage's prompt in tokens."""
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
    with MessageRejected if that prompt is at fault, and with EngineDied if the whole engine is
    gone; cancelling a future frees the prompt's place. While prompts are in flight only ``submit``
    and ``check_health`` are called, the latter from any thread.
    """

    @property
    def precisions(self) -> tuple[str, ...]:
        """Number format of the arithmetic: ``fp32``, ``bf16``, ``fp16``, ``int8`` or vLLM's name of
        a quantization. One name, or for a cascade one for each stage."""
        ...

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Begin to answer one prompt (token ids). Does not block. Raises EngineDied."""
        ...

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Answer a few prompts to build kernels and fill caches. Blocks."""
        ...

    def check_health(self) -> None:
        """Return if the engine can answer; raise EngineDied if not. Does not block."""
        ...

    def close(self) -> None:
        """Shut down and wait until the engine's processes are gone. Safe to call twice."""
        ...


@runtime_checkable
class SelfLimitingEngine(Engine, Protocol):
    """An engine that limits and times its prompts itself, as a cascade does for each stage.

    Its ``check_health`` finds overdue prompts and stages that hang.
    """

    @property
    def window(self) -> int:
        """The current limit on prompts that wait or are being answered."""
        ...

    def has_room(self) -> bool:
        """Return whether another prompt may be submitted now."""
        ...


class AdapterLoader(Protocol):
    """Loads more adapters next to the one that the engine was opened with."""

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Return an engine that answers by this verified adapter, not yet warm. Blocks for seconds
        or minutes.

        ``background``: its prompts yield to those of other adapters, if the engine can do that.
        Closing the returned engine unloads this adapter alone. Raises AdapterRefused, SettingsError
        or EngineDied, and then leaves nothing behind.
        """
        ...


@dataclass(frozen=True, slots=True)
class Declined:
    """An adapter with which a worker could not start, and why (without message text)."""

    digest: str
    problem: str


def decide(answer: Answer, manifest: Manifest) -> Decision:
    """Turn an answer into a decision. Raises MessageRejected for an invalid answer."""
    temperature = manifest.calibration.temperature
    try:
        if isinstance(answer, StageDecisions):
            *earlier, last = answer.decisions
            return replace(last, earlier=tuple(earlier))
        if isinstance(answer, CodeScores):
            return decide_from_codes(answer.logprobs, manifest.taxonomy.names, temperature)
        return decide_from_logits(
            answer.logits, manifest.head, manifest.taxonomy.names, temperature
        )
    except InvalidScores as error:
        raise MessageRejected("invalid_answer", str(error)) from error
