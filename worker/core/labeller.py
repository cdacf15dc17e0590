"""One adapter applied: a record to a prompt, an answer to an outcome, an outcome to records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from worker.contract.manifest import Manifest
from worker.contract.prompt import Encode, build_prompt
from worker.contract.records import InputFormat, SupportMessage, decode_value
from worker.contract.scoring import Decision, ReviewReason, Thresholds, review_reasons
from worker.engine.port import Answer, Engine, MessagePrompt, StageDecisions, decide
from worker.errors import MessageRejected
from worker.records.encode import DeadLetterEncoder, OutputEncoder
from worker.records.types import Classified, Record, Rejected, Timing, Tombstone

TombstonePolicy = Literal["dead", "skip", "forward"]
"""What becomes of a record without a value: a dead letter, nothing, or a tombstone in its turn."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message on its way into the engine."""

    prompt_ids: Sequence[int]
    message_id: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class Labeller:
    """The labelling contract of one adapter, applied. Pure: the same input, the same outcome."""

    manifest: Manifest
    encode_plain: Encode
    thresholds: Thresholds
    layout: InputFormat
    tombstones: TombstonePolicy = "dead"
    stages: tuple[Thresholds, ...] = ()
    """Of a cascade: the thresholds of each stage, in the place of ``thresholds``."""

    def give_up(self, record: Record, error: MessageRejected) -> Rejected | Tombstone:
        """Return how a record ends that ``prepare`` rejects."""
        if error.reason == "tombstone":
            if self.tombstones == "skip":
                return Tombstone(forwarded=False)
            # Without a key it would delete nothing, and a compacted topic refuses it.
            if self.tombstones == "forward" and record.key is not None:
                return Tombstone(forwarded=True)
        return Rejected(error.reason, "decode", error.detail)

    def prepare(self, record: Record) -> Prepared:
        """Decode a record and build its prompt. Raises MessageRejected."""
        if record.damage is not None:
            raise MessageRejected("retry_damaged", record.damage)
        return self.prepare_message(decode_value(record.value, self.layout))

    def prepare_message(self, message: SupportMessage) -> Prepared:
        """Build the prompt of a message. Raises MessageRejected."""
        prompt = build_prompt(self.manifest.prompt, message.text, self.encode_plain)
        if prompt is None:
            raise MessageRejected("empty_message", "nothing printable is in the message")
        ids: Sequence[int] = prompt.ids
        if self.stages:
            ids = MessagePrompt(prompt.ids, message.text, prompt.truncated)
        return Prepared(ids, message.message_id, prompt.truncated)

    def decide(self, answer: Answer) -> Decision:
        """Turn the engine's answer into a label. Raises MessageRejected when it is none."""
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
        """Say why a person should look at this decision, by the thresholds in force; of a cascade
        by those of the stage that answered."""
        thresholds = self.stages[len(decision.earlier)] if self.stages else self.thresholds
        return review_reasons(decision, thresholds)


@dataclass(slots=True, eq=False)
class ServingAdapter:
    """Everything that one adapter decides and stamps, so that no record can mix two.

    A record is bound to one when it is admitted to the engine: prompt, engine, codes, temperature,
    thresholds and the digest in its result are that adapter's. The counts are the loop's thread's
    to change: records admitted and not finished, and prompts submitted and not answered. ``since``
    is when it began to serve in its role (UTC).
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
        """The adapter's identity."""
        return self.outputs.digest

    @property
    def idle(self) -> bool:
        """Whether nothing in flight is its own."""
        return not self.unfinished and not self.in_engine
