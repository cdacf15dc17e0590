"""Values whose schema lies in a Schema Registry, by confluent-kafka's client and serializers.

A framed value begins with a zero byte and the id of its schema, or a header holds the id. Worker
and desk turn Avro and JSON Schema into plain JSON, so all that follows is as without a registry.
Needs the extra ``registry``.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import structlog

from worker.common.errors import describe_private
from worker.contract.errors import MessageRejected
from worker.contract.records import Headers

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema
    from confluent_kafka.schema_registry.serde import SchemaId
    from confluent_kafka.serialization import SerializationContext

SchemaType = Literal["json-schema", "avro"]
OutputFormat = Literal["json", "json-schema", "avro"]

_TYPES = {"json-schema": "JSON", "avro": "AVRO"}

_STRATEGY = "subject.name.strategy.type"

# One look-up must not take minutes: it is repeated for as long as messages wait for it.
_CLIENT = {"timeout": 5.0, "max.retries": 1}
_AGAIN_S = 1.0
_MOST_SCHEMAS = 1000
# Somebody may register it meanwhile, or a follower of the registry may learn it.
_UNKNOWN_S = 60.0

_NOT_FOUND = (40401, 40402, 40403)
"""The registry's codes for a subject, a version and a schema that it does not have."""

_ID_HEADER = "__value_schema_id"

_Key = tuple[str, bytes]
"""A topic and a schema's id: caches of the client are by subject, which is the topic's."""

_log = structlog.get_logger("worker.schemas")


class RegistryAway(Exception):
    """The registry does not answer, or refuses the client."""


class SchemaNotFound(Exception):
    """The registry has no such schema, or not under that subject."""


class SchemaRegistry:
    """Reads and writes values by their schemas. Safe from any thread.

    ``properties`` are the client's (``url``, ``basic.auth.user.info``, ``ssl.ca.location``), and
    ``subject.name.strategy.type``: TOPIC, RECORD or TOPIC_RECORD. Raises ``error`` without the
    extra, and for properties that the client refuses.
    """

    def __init__(self, properties: Mapping[str, object], error: Callable[[str], Exception]) -> None:
        try:
            from cachetools import LRUCache, TTLCache
            from confluent_kafka.schema_registry import SchemaRegistryClient
            from confluent_kafka.schema_registry.avro import AvroDeserializer
            from confluent_kafka.schema_registry.json_schema import JSONSerializer as _  # noqa: F401
            from confluent_kafka.schema_registry.serde import (
                STRATEGY_TYPE_MAP,
                SubjectNameStrategyType,
            )
        except ImportError as problem:
            raise error(
                f"kafka.registry needs the extra 'registry' (there is no {problem.name})"
            ) from None
        own = dict(properties)
        self._strategy = {_STRATEGY: str(own.pop(_STRATEGY, "TOPIC")).upper()}
        strategies = {kind.value: function for kind, function in STRATEGY_TYPE_MAP.items()}
        if self._strategy[_STRATEGY] not in strategies:
            raise error(f"kafka.registry: {_STRATEGY} must be one of {', '.join(strategies)}")
        self._subject = strategies[SubjectNameStrategyType(self._strategy[_STRATEGY]).value]
        try:
            self._client = SchemaRegistryClient({**_CLIENT, **own})
        except (TypeError, ValueError) as problem:
            raise error(f"kafka.registry: {problem}") from None
        self._read_avro = AvroDeserializer(self._client, conf={_STRATEGY: "TOPIC"})
        self._lock = threading.Lock()
        self._known: LRUCache[_Key, str] = LRUCache(_MOST_SCHEMAS)
        self._refused: TTLCache[_Key, str] = TTLCache(_MOST_SCHEMAS, _UNKNOWN_S)
        self._wanted: dict[_Key, tuple[bytes, Headers]] = {}
        self._thread: threading.Thread | None = None
        self.away_since: float | None = None
        """Since when messages wait for the registry (monotonic seconds); None if it answers."""

    def is_known(self, topic: str, value: bytes | None, headers: Headers = ()) -> bool:
        """Return whether ``plain`` knows what to do with this value; else begin a look-up."""
        key = _key(topic, value, headers)
        if key is None or value is None:
            return True
        with self._lock:
            if self._is_settled(key):
                return True
            if len(self._wanted) < _MOST_SCHEMAS:
                self._wanted.setdefault(key, (value, headers))
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_up_wanted, daemon=True)
                self._thread.start()
        return False

    def plain(self, topic: str, value: bytes | None, headers: Headers = ()) -> bytes | None:
        """Return a value as JSON, without a look-up; one that is not framed as it is.

        Raises MessageRejected if the schema is not known or the value does not have its form.
        """
        key = _key(topic, value, headers)
        if key is None or value is None:
            return value
        with self._lock:
            kind, why = self._known.get(key), self._refused.get(key)
        if kind is None:
            raise MessageRejected("unknown_schema", why or "the registry did not answer in time")
        context = _context(topic, headers)
        try:
            if kind == "JSON":
                return _framing(value, context)[1]
            return json.dumps(self._read_avro(value, context), default=_as_text).encode()
        except Exception as error:  # noqa: BLE001 - what a decoder raises for foreign bytes
            raise MessageRejected(
                "schema_mismatch", f"the value does not fit its schema: {type(error).__name__}"
            ) from None

    def look_up(self, topic: str, value: bytes | None, headers: Headers = ()) -> bytes | None:
        """Do the same as ``plain``, with a look-up on this thread if one is needed. Raises
        RegistryAway, MessageRejected."""
        key = _key(topic, value, headers)
        if key is not None and value is not None:
            with self._lock:
                is_settled = self._is_settled(key)
            if not is_settled:
                self._ask(key, value, headers)
        return self.plain(topic, value, headers)

    def serializer(self, topic: str, kind: SchemaType, schema: str) -> Callable[[Any], bytes]:
        """Return the function that writes a topic's values, without a look-up: from JSON as bytes,
        or for Avro from the object.

        Raises SchemaNotFound with the subject if ``schema`` is not registered; RegistryAway.
        """
        from confluent_kafka.schema_registry.avro import AvroSerializer
        from confluent_kafka.schema_registry.json_schema import JSONSerializer

        given, subject = _schema(kind, schema), self.subject(topic, schema)
        conf = {"auto.register.schemas": False, **self._strategy}
        serialize: Callable[..., bytes]
        if kind == "avro":
            serialize = AvroSerializer(self._client, given, conf=conf)
        else:
            # The classes that make the record make the schema, too.
            conf["validate"] = False
            serialize = JSONSerializer(given, self._client, conf=conf, json_encode=bytes)
        context = _context(topic)
        try:
            with _answered():
                # As the serializer does it, which finds it in the client's cache later.
                self._client.lookup_schema(subject, given)
        except SchemaNotFound:
            raise SchemaNotFound(subject) from None
        return lambda value: serialize(value, context)

    def register(self, topics: Mapping[str, str], kind: SchemaType) -> dict[str, int]:
        """Register a schema for each topic; return the ids by subject.

        Raises ValueError, before anything is registered, with all subjects whose versions are
        incompatible; RegistryAway.
        """
        wanted = {self.subject(topic, text): _schema(kind, text) for topic, text in topics.items()}
        refused = [subject for subject, schema in wanted.items() if not self._fits(subject, schema)]
        if refused:
            raise ValueError(", ".join(refused))
        with _answered():
            return {name: self._client.register_schema(name, each) for name, each in wanted.items()}

    def subject(self, topic: str, schema: str) -> str:
        """Return the subject of a topic's values."""
        parsed = json.loads(schema)
        return str(self._subject(_context(topic), parsed.get("title") or parsed["name"]))

    def _is_settled(self, key: _Key) -> bool:
        return key in self._known or key in self._refused

    def _fits(self, subject: str, schema: Schema) -> bool:
        try:
            with _answered():
                return self._client.test_compatibility(subject, schema)
        except SchemaNotFound:
            return True  # it has no version yet

    def _look_up_wanted(self) -> None:
        """Look up schemas until none is wanted."""
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                key, (value, headers) = next(iter(self._wanted.items()))
            try:
                self._ask(key, value, headers)
            except RegistryAway as error:
                if self.away_since is None:
                    self.away_since = time.monotonic()
                    _log.error("registry.away", problem=str(error))
                time.sleep(_AGAIN_S)
                with self._lock:  # behind the others: only this schema may have a problem
                    self._wanted[key] = self._wanted.pop(key)
                continue
            if self.away_since is not None:
                _log.info("registry.back", seconds=round(time.monotonic() - self.away_since, 1))
                self.away_since = None
            with self._lock:
                del self._wanted[key]

    def _ask(self, key: _Key, value: bytes, headers: Headers) -> None:
        """Learn a schema, and those that it refers to. Raises RegistryAway."""
        from confluent_kafka.serialization import SerializationError

        context = _context(key[0], headers)
        kind, why = None, "the id of its schema cannot be read"
        with suppress(SerializationError, ValueError, struct.error):
            id_, _ = _framing(value, context)
            kind, why = self._ask_type(id_, value, context)
        with self._lock:
            if kind is not None:
                self._known[key] = kind
            else:
                self._refused[key] = why

    def _ask_type(
        self, id_: SchemaId, value: bytes, context: SerializationContext
    ) -> tuple[str | None, str]:
        name = id_.guid or id_.id
        try:
            with _answered():
                if id_.guid is not None:
                    schema = self._client.get_schema_by_guid(str(id_.guid))
                else:
                    schema = self._client.get_schema(cast("int", id_.id))
            if schema.schema_type == "AVRO":
                self._fill_caches(value, context)
        except SchemaNotFound:
            return None, f"the registry has no schema {name}, or none that it refers to"
        if schema.schema_type not in _TYPES.values():
            return None, f"schema {name} is {schema.schema_type}, neither JSON nor AVRO"
        return schema.schema_type, ""

    def _fill_caches(self, value: bytes, context: SerializationContext) -> None:
        """Read a value for the first time, for which the deserializer asks the registry."""
        try:
            with _answered():
                self._read_avro(value, context)
        except (RegistryAway, SchemaNotFound):
            raise
        except Exception:  # noqa: BLE001, S110 - the value's fault, or its schema's: ``plain`` says so
            pass


@contextmanager
def _answered() -> Iterator[None]:
    """Raise SchemaNotFound or RegistryAway for the client's errors."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from httpx2 import HTTPError

    try:
        yield
    except SchemaRegistryError as error:
        # Its own words for it: a wrong url gives a 404 too, and no message is to blame for that.
        if error.error_code in _NOT_FOUND:
            raise SchemaNotFound(error.error_message) from None
        why = f"{error.http_status_code}: {error.error_message}"
    except (HTTPError, OSError) as error:
        why = describe_private(error)
    else:
        return
    raise RegistryAway(f"the registry (kafka.registry) does not answer: {why}")


def _key(topic: str, value: bytes | None, headers: Headers) -> _Key | None:
    """Return what identifies a value's schema; None for a value that is not framed."""
    for name, content in headers:
        if name == _ID_HEADER and content is not None:
            return topic, content
    if value is None or len(value) < 6 or value[0] != 0:
        return None
    return topic, value[1:5]


def _context(topic: str, headers: Headers = ()) -> SerializationContext:
    from confluent_kafka.serialization import MessageField, SerializationContext

    return SerializationContext(topic, MessageField.VALUE, list(headers))


def _framing(value: bytes, context: SerializationContext) -> tuple[SchemaId, bytes]:
    from confluent_kafka.schema_registry import dual_schema_id_deserializer
    from confluent_kafka.schema_registry.serde import SchemaId

    id_ = SchemaId("")
    return id_, dual_schema_id_deserializer(value, context, id_).read()


def _schema(kind: SchemaType, text: str) -> Schema:
    from confluent_kafka.schema_registry import Schema

    return Schema(text, _TYPES[kind])


def _as_text(value: object) -> str:
    """Return what JSON does not have, such as bytes, times and decimals, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
