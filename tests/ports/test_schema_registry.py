"""Values with registered schemas, through real Kafka, against a registry that can be stopped.

The publishers and readers are confluent-kafka's serializers, as other programs use them.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from desk.stream.kafka import with_schema
from desk.stream.port import Place
from desk.stream.port import Record as DeskRecord
from tests.chaos.harness import Arena
from tests.support.processes import verify, wait_until, worker_command
from tests.support.schema_registry import LocalRegistry
from tests.support.topics import read_messages
from worker.common.schema_registry import RegistryAway, SchemaRegistry
from worker.contract.records import read_dead_letter, read_output
from worker.errors import SettingsError
from worker.policies import kafka_config
from worker.records.schemas import avro_text
from worker.settings import load_settings
from worker.stream.output_schemas import make_serializers

pytestmark = pytest.mark.timeout(180)

AVRO = json.dumps(
    {
        "type": "record",
        "name": "support.Message",
        "fields": [
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "message", "type": ["null", "string"], "default": None},
        ],
    }
)
JSON = json.dumps(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Message",
        "type": "object",
        "properties": {"id": {"type": "string"}, "message": {"type": "string"}},
    }
)
PARTITIONS = 2


class RegistryArena(Arena):
    """An arena whose publishers register their schemas."""

    def set_up(self, registry: LocalRegistry, output: str = "json", wait_s: float = 60.0) -> None:
        self.registry = registry
        self.settings = {
            "kafka.registry.url": f"'{registry.url}'",
            "kafka.output_format": f"'{output}'",
            "kafka.registry_wait_s": str(wait_s),
        }
        self.client = SchemaRegistryClient({"url": registry.url})

    def write(self, kind: str, number: int, text: str = "where is parcel {}?") -> bytes:
        """A message of a publisher of this kind; "new": with an Avro schema of its own."""
        given = {"id": str(number), "message": text.format(number)}
        context = SerializationContext(self.topics["in"], MessageField.VALUE)
        conf = {"subject.name.strategy.type": "TOPIC_RECORD"}
        if kind in {"avro", "new"}:
            own = {"name": f"support.Message{number}"} if kind == "new" else {}
            schema = json.dumps({**json.loads(AVRO), **own})
            given["id"] = f"00000000-0000-4000-8000-{number:012}"
            return AvroSerializer(self.client, schema, conf=conf)(given, context) or b""
        if kind == "json-schema":
            return JSONSerializer(JSON, self.client, conf=conf)(given, context) or b""
        return json.dumps(given).encode()

    def read_by(self, output: str) -> Callable[[str, bytes], bytes]:
        """A reader of this kind's labels, as JSON."""
        if output == "avro":
            avro = AvroDeserializer(self.client)
            read: Any = avro
        elif output == "json-schema":
            read = JSONDeserializer(None, schema_registry_client=self.client)
        else:
            return lambda _, value: value
        return lambda topic, value: json.dumps(
            read(value, SerializationContext(topic, MessageField.VALUE))
        ).encode()

    @property
    def all_settings(self) -> dict[str, str]:
        own = {name: value.strip("'") for name, value in self.settings.items()}
        return {**self.kafka_settings, **own}

    def make_topics(self) -> tuple[int, str]:
        done = worker_command("topics", self.all_settings, timeout_s=60)
        return done.returncode, done.stdout + done.stderr

    def reasons(self) -> Counter[str]:
        letters = read_messages(self.servers, self.topics["dead"])
        headers = (cast("list[tuple[str, bytes]]", each.headers()) for each in letters)
        return Counter(read_dead_letter(each).reason for each in headers)


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    registry = LocalRegistry()
    yield registry
    registry.stop()


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[RegistryArena]:
    with ExitStack() as stack:
        yield RegistryArena(bootstrap_servers, stack, partitions=PARTITIONS)


@pytest.mark.parametrize("output", ["json-schema", "avro"])
def test_labels_of_every_kind_of_message_have_the_registered_schema(
    arena: RegistryArena, registry: LocalRegistry, output: str
) -> None:
    """Plain JSON too. ``verify`` and the desk read the labels; no look-up is made twice."""
    arena.set_up(registry, output)
    code, said = arena.make_topics()
    assert code == 0, said
    assert f"{arena.topics['out']}-value" in said
    arena.reader.plain = arena.read_by(output)
    worker = arena.start_worker()
    worker.wait_until_ready()
    kinds = ("json", "json-schema", "avro")
    arena.publish([arena.write(kinds[n % 3], n) for n in range(30)])
    arena.wait_for(30)
    arena.verdict(30)
    assert arena.reasons() == {}
    values = read_messages(arena.servers, arena.topics["out"])
    assert all((each.value() or b"")[:1] == b"\0" for each in values)
    mine = SchemaRegistry({"url": registry.url}, ValueError)
    first = DeskRecord(Place(arena.topics["out"], 0, 0), None, values[0].value(), None)
    assert read_output(with_schema(first, mine).value).source.topic == arena.topics["in"]
    code, found = verify(arena.all_settings)
    assert (code, found["proven"]) == (0, True), found
    assert arena.stop(worker) == 0


def test_what_has_no_readable_schema_is_a_dead_letter_with_the_reason(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    arena.set_up(registry)
    good = arena.write("avro", 0)
    proto = arena.client.register_schema(
        f"{arena.topics['in']}-proto",
        Schema('syntax = "proto3"; message M { string message = 1; }', "PROTOBUF"),
    )
    worker = arena.start_worker()
    worker.wait_until_ready()
    values = [
        good,
        b"\0" + (999_999).to_bytes(4, "big") + good[5:],  # no such schema
        b"\0" + proto.to_bytes(4, "big") + b"\0secret words",
        good[:5] + b"\xff" * 40,  # not a message of that schema
        good[:4],  # no frame at all
        arena.write("avro", 5),
    ]
    arena.publish(values)
    arena.wait_for(len(values))
    arena.verdict(len(values))
    assert arena.reasons() == {"unknown_schema": 2, "schema_mismatch": 1, "not_json": 1}
    letters = read_messages(arena.servers, arena.topics["dead"])
    assert {each.value() for each in letters} == set(values[1:5])
    assert "secret words" not in worker.log_path.read_text()
    assert arena.stop(worker) == 0


def test_without_the_registry_known_schemas_go_on_and_others_wait(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    """The partition of a message with an unknown schema waits, the other does not. A worker that is
    killed meanwhile loses nothing."""
    arena.set_up(registry)
    known = [arena.write("avro", n) for n in range(10)]
    unknown = [arena.write("json-schema", 100 + n) for n in range(5)]
    worker = arena.start_worker()
    worker.wait_until_ready()
    arena.publish(known[:2])
    arena.wait_for(2)
    registry.stop()
    # Even places go to partition 0: one unknown, and known ones behind it.
    arena.publish([unknown[0], known[2], known[3], known[4], known[5], known[6]])
    arena.wait_for(5)
    arena.read_for(1.5)
    assert {id_.split("-")[0] for id_ in arena.results[2:]} == {"1"}
    wait_until(lambda: "registry.away" in worker.events(), 20)
    wait_until(lambda: away_s(worker) > 0, 20)
    arena.kill(worker)
    registry.start()
    again = arena.start_worker()
    arena.publish([*unknown[1:], *known[7:]])
    arena.wait_for(2 + 6 + 7)
    arena.verdict(15)
    assert arena.reasons() == {}
    assert away_s(again) == 0
    assert arena.stop(again) == 0


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_minutes_without_the_registry_under_load_lose_nothing(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    """Every second one of 50 messages has a schema that nobody has used before."""
    arena.set_up(registry, "avro", wait_s=600.0)
    arena.make_topics()
    arena.reader.plain = arena.read_by("avro")
    known = arena.write("avro", 0)
    strange = [arena.write("new", n) for n in range(150)]
    worker = arena.start_worker()
    worker.wait_until_ready()
    began, sent = time.monotonic(), 0
    for second in range(150):
        if second == 10:
            arena.read_for(0.5)  # this reader's schemas are known now
            registry.stop()
        if second == 130:
            registry.start()
        values = [known] * 49 + [strange[second]]
        arena.publish(values)
        sent += len(values)
        time.sleep(max(0.0, began + second + 1 - time.monotonic()))
    arena.wait_for(sent)
    arena.verdict(sent)
    assert arena.reasons() == {}
    assert worker.events().count("registry.away") == 1
    assert arena.stop(worker) == 0


def test_a_wrong_url_is_the_registrys_absence_and_no_messages_fault(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    arena.set_up(registry, "avro")
    message = arena.write("avro", 1)
    wrong = SchemaRegistry({"url": f"{registry.url}/elsewhere"}, ValueError)
    with pytest.raises(RegistryAway, match="404"):
        wrong.look_up(arena.topics["in"], message)
    with pytest.raises(RegistryAway, match="404"):
        wrong.register({arena.topics["out"]: avro_text("output")}, "avro")


def away_s(worker: Any) -> float:
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    line = next(each for each in lines if each.startswith("clerk_registry_away_seconds"))
    return float(line.split()[-1])


def test_a_message_waits_for_the_registry_no_longer_than_the_setting(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    arena.set_up(registry, wait_s=2.0)
    message = arena.write("avro", 1)
    registry.stop()
    worker = arena.start_worker()
    worker.wait_until_ready()
    began = time.monotonic()
    arena.publish([message])
    arena.wait_for(1)
    assert time.monotonic() - began >= 2.0
    assert arena.reasons() == {"unknown_schema": 1}
    registry.start()  # it is asked until it answers, so that later messages are labelled
    wait_until(lambda: "registry.back" in worker.events(), 20)
    arena.publish([message, message])
    arena.wait_for(3)
    assert arena.reasons() == {"unknown_schema": 1}
    assert arena.stop(worker) == 0


def test_an_incompatible_schema_is_refused_before_anything_is_registered(
    arena: RegistryArena, registry: LocalRegistry
) -> None:
    """A worker without its schema in the registry refuses to start, and says what to do."""
    arena.set_up(registry, "avro")
    fields = [*json.loads(avro_text("output"))["fields"], {"name": "team", "type": "string"}]
    other = {"type": "record", "name": "filing_clerk.OutputRecord", "fields": fields[-1:]}
    subject = f"{arena.topics['review']}-value"
    arena.client.register_schema(subject, Schema(json.dumps(other), "AVRO"))
    code, said = arena.make_topics()
    assert code == 2
    assert subject in said
    assert "nothing was registered" in said
    assert f"{arena.topics['out']}-value" not in arena.client.get_subjects()
    loaded = load_settings(None, [f"{name}={value}" for name, value in arena.all_settings.items()])
    with pytest.raises(SettingsError, match="register it with clerk-worker topics"):
        make_serializers(kafka_config(loaded.settings.kafka))
