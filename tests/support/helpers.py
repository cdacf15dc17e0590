"""Builders that tests share: a toy tokenizer and manifest, a manual clock, a wired loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from hypothesis import strategies as st

from worker.contract import (
    BaseModel,
    Calibration,
    Encoders,
    FileDigest,
    GoldenPrompt,
    Label,
    Lora,
    Manifest,
    PromptSpec,
    Reference,
    Taxonomy,
    Thresholds,
    build_prompt,
    choose_codes,
    make_golden,
)
from worker.contract.records import InputFormat
from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord
from worker.core.batch import TopicRouter
from worker.core.labeller import Labeller
from worker.core.loop import Loop, LoopPolicy
from worker.core.pipeline import Pipeline
from worker.core.serving_adapter import ServingAdapter, TrafficSplit
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, CodeScores, Engine
from worker.errors import EngineDied
from worker.records.dead_letter import DeadLetterEncoder
from worker.records.output import OutputEncoder
from worker.records.types import Outcome, Outgoing, Record, TopicPartition
from worker.stream.fake import FakeStream

# What JSON can carry: also halves of surrogate pairs, which ``st.text`` leaves out.
any_text = st.lists(
    st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs"]), max_size=5),
    max_size=8,
).map("".join)

LABELS = ("billing", "delivery", "other")
NOW = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
SHA = "0" * 64

# The toy tokenizer: a token a character, but for two control tokens.
_CONTROL = {"<s>": 1, "</s>": 2}
_FIRST_ID = 10


def encode_plain(text: str) -> list[int]:
    """Characters to ids, control-token strings taken literally."""
    return [_FIRST_ID + ord(character) for character in text]


def encode_control(text: str) -> list[int]:
    """Characters to ids, control-token strings as their one id."""
    ids: list[int] = []
    while text:
        mark = next((one for one in _CONTROL if text.startswith(one)), None)
        ids.append(_CONTROL[mark] if mark else _FIRST_ID + ord(text[0]))
        text = text[len(mark or " ") :]
    return ids


def decode(ids: Sequence[int]) -> str:
    """Undo ``encode_plain``."""
    return "".join(chr(one - _FIRST_ID) for one in ids)


ENCODERS = Encoders(encode_control, encode_plain, frozenset(_CONTROL.values()))


def toy_taxonomy(labels: Sequence[str] = LABELS) -> Taxonomy:
    """A taxonomy of these labels."""
    return Taxonomy("toy", "1", "", tuple(Label(name, f"about {name}") for name in labels))


def toy_spec(max_message_tokens: int = 32, marker: str = "~") -> PromptSpec:
    """A prompt of one control token at either end."""
    prefix, suffix = "<s>File: ", "</s>="
    return PromptSpec(
        prefix,
        suffix,
        marker,
        tuple(encode_control(prefix)),
        tuple(encode_control(suffix)),
        tuple(encode_plain(marker)),
        max_message_tokens,
    )


def toy_manifest(**changes: Any) -> Manifest:
    """A manifest by the toy tokenizer, on no files; ``changes`` replace fields."""
    spec = changes.get("prompt", toy_spec())
    taxonomy = changes.get("taxonomy", toy_taxonomy())
    manifest = Manifest(
        name="toy-1",
        created_at="2024-05-06T07:08:09Z",
        base=BaseModel("toy-base", "main", SHA, SHA, {"model.safetensors": FileDigest(SHA, 1)}),
        taxonomy=taxonomy,
        prompt=spec,
        decoding="code",
        codes=choose_codes(taxonomy.names, spec.suffix, encode_control),
        lora=Lora(16, 32.0, ("q_proj", "v_proj")),
        calibration=Calibration(1.0, 100),
        thresholds=Thresholds(0.6, 0.5),
        golden=make_golden(spec, ENCODERS),
        files={},
    )
    return replace(manifest, **changes)


def toy_reference(labels: Sequence[str] = LABELS) -> Reference:
    """A reference that expects each label as often, and hardly ever a mass above 0.9."""
    return Reference((), {one: 1 / len(labels) for one in labels}, {"0.05": 0.9}, {"0.95": 0.9})


def one_golden(spec: PromptSpec, message: str = "hello") -> tuple[GoldenPrompt, ...]:
    """One golden prompt, for a manifest that is made many times."""
    prompt = build_prompt(spec, message, encode_plain)
    assert prompt is not None
    return (GoldenPrompt(message, prompt.ids, prompt.truncated),)


def toy_record(value: bytes | None = b'{"message": "hi"}', **changes: Any) -> Record:
    """A record of partition 3 of the topic ``in``, at offset 42."""
    fields: dict[str, Any] = {
        "source": TopicPartition("in", 3),
        "offset": 42,
        "key": b"customer-7",
        "value": value,
        "headers": (("trace", b"\xff\x00"), ("none", None)),
        "timestamp_ms": 1_700_000_000_123,
    }
    return Record(**{**fields, **changes})


def scores(label: str, p: float = 0.9) -> CodeScores:
    """An engine's answer that gives ``label`` the probability ``p`` and the others little."""
    codes = small_manifest().codes
    return CodeScores(
        {code.token_id: math.log(p if name == label else 0.01) for name, code in codes.items()}
    )


def toy_served(
    engine: Engine | None = None, manifest: Manifest | None = None, layout: str = "text"
) -> ServingAdapter:
    """An adapter in service. Without an engine of its own it answers nothing."""
    manifest = manifest or small_manifest()
    return ServingAdapter(
        Labeller(manifest, encode_plain, manifest.thresholds, InputFormat(layout)),  # type: ignore[arg-type]
        engine or FakeEngine(lambda _: CodeScores({})),
        OutputEncoder(manifest, "0.0"),
        DeadLetterEncoder("dead", "0.0", manifest.digest),
    )


@cache
def served_by() -> ServingAdapter:
    """An adapter to have finished records by."""
    return toy_served()


def toy_finished(record: Record, outcome: Outcome, *rest: Any, **changes: Any) -> CompletedRecord:
    """A finished record of the toy adapter."""
    return CompletedRecord(record, outcome, served_by(), *rest, **changes)


class RouterEvents:
    """A RosterListener that keeps what it is told, and closes who is idle."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def changed(self, before: TrafficSplit, now: TrafficSplit) -> None:
        """Keep the main adapter's digest."""
        self.log.append(("changed", now.main.digest))

    def idle(self, served: ServingAdapter) -> None:
        """Keep the digest and close it."""
        self.log.append(("idle", served.digest))
        served.engine.close()

    def failed(self, served: ServingAdapter, error: EngineDied) -> None:
        """Keep the digest."""
        self.log.append(("failed", served.digest))


class Clock:
    """Monotonic seconds that go on only when read (by ``tick``), advanced or waited for."""

    def __init__(self, now: float = 1000.0, tick: float = 0.0) -> None:
        self.now = now
        self.tick = tick
        self._due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        """Read the time."""
        self.advance(self.tick)
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what falls due in it."""
        self.now += seconds
        due = [one for one in self._due if one[0] <= self.now]
        self._due = [one for one in self._due if one[0] > self.now]
        for _, action in due:
            action()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something once so much time has passed."""
        self._due.append((self.now + seconds, action))


class ScriptedEngine:
    """A FakeEngine that is told by a message's text what to do with it."""

    def __init__(self) -> None:
        self.fake = FakeEngine(self._respond)
        self.submitted: list[tuple[str, Future[Answer]]] = []
        self._answer: Answer = CodeScores({})

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        """Take a prompt in."""
        future = self.fake.submit(prompt_ids)
        self.submitted.append((_message(prompt_ids), future))
        return future

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Do nothing."""

    def check_health(self) -> None:
        """Raise EngineDied once the fake is dead."""
        self.fake.check_health()

    def close(self) -> None:
        """End it."""
        self.fake.close()

    @property
    def pending(self) -> list[str]:
        """Texts that wait for an answer, oldest first."""
        return [_message(one) for one in self.fake.pending]

    def future(self, text: str) -> Future[Answer]:
        """The oldest future of a text that is not done."""
        return next(f for one, f in self.submitted if one == text and not f.done())

    def answer(self, text: str, label: str | None = "billing", p: float = 0.9) -> None:
        """Give the oldest of this text its label; no label: an answer that holds no scores."""
        self._answer = CodeScores({}) if label is None else scores(label, p=p)
        self.fake.finish(self.pending.index(text))

    def fail(self, text: str, error: Exception) -> None:
        """Fail the oldest of this text."""
        self.fake.fail(error, self.pending.index(text))

    def begin(self, text: str) -> None:
        """Make the oldest of this text one that is computed already and cannot be called off."""
        self.future(text).cancel = lambda: False  # type: ignore[method-assign]

    def _respond(self, prompt: Sequence[int]) -> Answer:
        return self._answer


def _message(prompt_ids: Sequence[int]) -> str:
    spec = small_manifest().prompt
    return decode(prompt_ids[len(spec.prefix_ids) : len(prompt_ids) - len(spec.suffix_ids)])


class Events:
    """A Listener that keeps what it is told."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def publishing(self, batch: Sequence[CompletedRecord]) -> None:
        """Keep the ids."""
        self.log.append(("publishing", [one.record.id for one in batch]))

    def transaction(self, result: str, seconds: float) -> None:
        """Keep the result."""
        self.log.append(("transaction", result))

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Keep the ids."""
        self.log.append(("published", [one.record.id for one in batch]))

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Keep the attempt."""
        self.log.append(("publish_failed", records, attempt))

    def rebalanced(self, kind: str, partitions: Sequence[TopicPartition], dropped: int) -> None:
        """Keep it."""
        self.log.append((kind, [one.partition for one in partitions], dropped))

    def backpressure(self, kind: str, records: int, size_bytes: int) -> None:
        """Keep it."""
        self.log.append((kind, records))

    def kinds(self, *wanted: str) -> list[tuple[Any, ...]]:
        """What was told of these kinds, in order."""
        return [one for one in self.log if one[0] in wanted]


@dataclass(frozen=True, slots=True)
class Published:
    """One record of a sink topic, in a form that is easy to compare."""

    topic: str
    id: str
    label: str | None = None
    reason: str | None = None


def read_output(outgoing: Outgoing) -> Published:
    """Read an output, a review or a dead letter."""
    if outgoing.topic != "dead":
        assert outgoing.value is not None
        value = json.loads(outgoing.value)
        return Published(outgoing.topic, value["id"], label=value["label"])
    headers = {name: (value or b"").decode() for name, value in outgoing.headers}
    source = "-".join(headers[f"clerk.source.{one}"] for one in ("topic", "partition", "offset"))
    return Published("dead", source, reason=headers["clerk.reason"])


@cache
def small_manifest() -> Manifest:
    """A toy manifest with one golden prompt and a reference, made once."""
    return toy_manifest(golden=one_golden(toy_spec()), reference=toy_reference())


@dataclass(slots=True)
class Rig:
    """A loop and everything around it. The loop has subscribed; no partition is assigned yet."""

    partitions: int = 1
    policy: LoopPolicy = field(default_factory=LoopPolicy)
    deadline_s: float = 60.0
    max_attempts: int = 2
    review_topic: str | None = "review"
    tick: float = 0.0
    stream: FakeStream = field(init=False)
    engine: ScriptedEngine = field(init=False)
    clock: Clock = field(init=False)
    events: Events = field(init=False)
    router: AdapterRouter = field(init=False)
    router_events: RouterEvents = field(init=False)
    waits: list[float] = field(init=False)
    loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        # The real wait for an answer is no use here: answers come when a test says so.
        policy = replace(self.policy, result_wait_s=0.0)
        self.stream = FakeStream("in", self.partitions)
        self.engine = ScriptedEngine()
        self.clock = Clock(tick=self.tick)
        self.events = Events()
        self.waits = []
        self.router_events = RouterEvents()
        self.router = AdapterRouter(TrafficSplit(toy_served(self.engine)), self.router_events)
        pipeline = Pipeline(
            self.router,
            deadline_s=self.deadline_s,
            max_attempts=self.max_attempts,
            clock=self.clock,
        )
        self.loop = Loop(
            self.stream,
            pipeline=pipeline,
            topic_router=TopicRouter("out", self.review_topic),
            listener=self.events,
            policy=policy,
            clock=self.clock,
            now=lambda: NOW,
            wait=self._wait,
        )
        self.stream.subscribe(self.loop)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    def add(self, *texts: str, partition: int = 0) -> None:
        """Append messages to a partition."""
        for text in texts:
            self.stream.add(text.encode(), partition)

    def turn(self, times: int = 1) -> None:
        """Run turns of the loop, each a second after the last, so that publishing is due."""
        for _ in range(times):
            self.clock.advance(1.0)
            self.loop.run_once()

    def answer(self, *texts: str) -> None:
        """Answer these messages, in this order, and run a turn."""
        for text in texts:
            self.engine.answer(text)
        self.turn()

    @property
    def outputs(self) -> list[Published]:
        """What was published, in order, over all topics."""
        return [read_output(one) for one in self.stream.outputs]

    @property
    def ids(self) -> list[str]:
        """Ids of what was published, in order."""
        return [one.id for one in self.outputs]

    def committed(self, partition: int = 0) -> int:
        """The committed offset of a partition."""
        return self.stream.committed.get(self.stream.sources[partition], 0)


def started(*texts: str, **options: Any) -> Rig:
    """A rig with all partitions assigned and these messages of partition 0 in the engine."""
    rig = Rig(**options)
    rig.add(*texts)
    rig.stream.assign(*range(rig.partitions))
    rig.turn()
    return rig
