"""Before the engine and after it: a record to a prompt, an answer to an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.contract.errors import InvalidScores
from worker.contract.manifest import Manifest
from worker.contract.prompt import build_prompt
from worker.contract.records import InputFormat, SupportMessage, decode_value
from worker.contract.review import ReviewReason, Thresholds, review_reasons
from worker.contract.scoring import (
    Decision,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
)
from worker.contract.tokens import Encode
from worker.engine.port import Answer, CodeScores, HeadLogits
from worker.errors import MessageRejected
from worker.records.types import Classified, Record, Rejected, Timing, Tombstone

TombstonePolicy = Literal["dead", "skip", "forward"]
"""What becomes of a record without a value: a dead letter, nothing, or a tombstone in its turn."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message on its way into the engine."""

    prompt_ids: tuple[int, ...]
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
        return Prepared(prompt.ids, message.message_id, prompt.truncated)

    def decide(self, answer: Answer) -> Decision:
        """Turn the engine's answer into a label. Raises MessageRejected when it is none."""
        manifest = self.manifest
        temperature = manifest.calibration.temperature
        try:
            if isinstance(answer, CodeScores):
                return decide_from_codes(answer.logprobs, manifest.codes, temperature)
            names = manifest.taxonomy.names
            if isinstance(answer, HeadLogits):
                return decide_from_logits(answer.logits, manifest.head, names, temperature)
            return decide_from_choice(answer.text, answer.logprob, names)
        except InvalidScores as error:
            raise MessageRejected("invalid_answer", str(error)) from error

    def classify(self, prepared: Prepared, answer: Answer, timing: Timing) -> Classified:
        """Turn the answer to a prepared message into its outcome. Raises MessageRejected."""
        decision = self.decide(answer)
        return Classified(
            decision,
            prepared.message_id,
            prepared.truncated,
            self.review_reasons(decision),
            timing,
        )

    def review_reasons(self, decision: Decision) -> tuple[ReviewReason, ...]:
        """Say why a person should look at this decision, by the thresholds in force."""
        return review_reasons(decision, self.thresholds)
