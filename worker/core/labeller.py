"""Apply one adapter: from a record to a prompt, and from an answer to an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from worker.contract.errors import MessageRejected
from worker.contract.manifest import Manifest
from worker.contract.prompt import Encode, build_prompt
from worker.contract.records import InputFormat, SupportMessage, decode_value
from worker.contract.scoring import Decision, ReviewReason, Thresholds, review_reasons
from worker.engine.port import Answer, Engine, MessagePrompt, StageDecisions, decide
from worker.records.encode import DeadLetterEncoder, OutputEncoder
from worker.records.types import Classified, Record, Rejected, Timing, Tombstone

TombstonePolicy = Literal["dead", "skip", "forward"]
"""A record without a value becomes a dead letter, nothing, or a tombstone in the output."""


# Not frozen: one is made for each record (``worker/records/types.py``).
@dataclass(slots=True)
class Prepared:
    """A message ready for the engine."""

    prompt_ids: Sequence[int]
    message_id: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class Labeller:
    """Applies one adapter's contract. Pure: the same input gives the same outcome."""

    manifest: Manifest
    encode_plain: Encode
    thresholds: Thresholds
    layout: InputFormat
    tombstones: TombstonePolicy = "dead"
    stages: tuple[Thresholds, ...] = ()
    """In a cascade, each stage's thresholds, which replace ``thresholds``."""

    def give_up(self, record: Record, error: MessageRejected) -> Rejected | Tombstone:
        """Return the outcome of a record that ``prepare`` rejected."""
        if error.reason == "tombstone":
            if self.tombstones == "skip":
                return Tombstone(forwarded=False)
            # Without a key it would delete nothing, and a compacted topic would refuse it.
            if self.tombstones == "forward" and record.key is not None:
                return Tombstone(forwarded=True)
        return Rejected(error.reason, "decode", error.detail)

    def prepare(self, record: Record) -> Prepared:
        """Decode a record and build its prompt. Raises MessageRejected."""
        return self.prepare_message(decode_value(record.content, self.layout))

    def prepare_message(self, message: SupportMessage) -> Prepared:
        """Build the prompt of a message. Raises MessageRejected."""
        prompt = build_prompt(self.manifest.prompt, message.text, self.encode_plain)
        if prompt is None:
            raise MessageRejected("empty_message", "the message has no printable characters")
        ids: Sequence[int] = prompt.ids
        if self.stages:
            ids = MessagePrompt(prompt.ids, message.text, prompt.truncated)
        return Prepared(ids, message.message_id, prompt.truncated)

    def decide(self, answer: Answer) -> Decision:
        """Turn the engine's answer into a label. Raises MessageRejected if it is not one."""
        return decide(answer, self.manifest)

    def classify(self, prepared: Prepared, answer: Answer, timing: Timing) -> Classified:
        """Turn the answer to a prepared message into its outcome. Raises MessageRejected."""
        decision, truncated = self.decide(answer), prepared.truncated
        if isinstance(answer, StageDecisions):
            truncated, timing = answer.truncated, replace(timing, stages_s=answer.seconds)
        return Classified(
            decision,
            prepared.message_id,
            truncated,
            self.review_reasons(decision),
            timing,
        )

    def review_reasons(self, decision: Decision) -> tuple[ReviewReason, ...]:
        """Return why this decision needs review. A cascade uses the thresholds of the stage that
        answered."""
        thresholds = self.stages[len(decision.earlier)] if self.stages else self.thresholds
        return review_reasons(decision, thresholds)


# Compared by identity: the same adapter loaded again is another one, with its own engine and its
# own records in flight.
@dataclass(slots=True, eq=False)
class ServingAdapter:
    """One adapter with its engine and encoders, kept together so that no record mixes two adapters.

    A record is bound to it when it is admitted: prompt, engine, codes, temperature, thresholds, and
    the digest in the result all belong to this adapter. ``since`` is when it started to serve in
    its role (UTC). Only the loop's thread changes ``unfinished`` (records admitted and not
    finished) and ``in_engine`` (prompts submitted and not answered).
    """

    labeller: Labeller
    engine: Engine
    outputs: OutputEncoder
    dead_letters: DeadLetterEncoder
    since: datetime | None = None
    unfinished: int = 0
    in_engine: int = 0

    @property
    def manifest(self) -> Manifest:
        """The adapter's contract."""
        return self.labeller.manifest

    @property
    def digest(self) -> str:
        """The adapter's digest, which identifies it."""
        return self.outputs.digest

    @property
    def idle(self) -> bool:
        """Whether it has nothing in flight."""
        return not self.unfinished and not self.in_engine
