"""Whether the client library takes its properties, found out before anything slow begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer

from worker.errors import SettingsError
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_promises import Properties
from worker.stream.kafka_types import client_log

# They begin to connect by themselves; whether anybody answers does not matter yet.
_SILENT = {"log_level": 0}


def check_clients(config: KafkaConfig) -> None:
    """Make both clients and close them again: the library judges its own properties.

    It needs no broker and takes some milliseconds. Raises SettingsError in one line, naming the
    setting that is to blame: the one without which the library would be content.
    """
    for try_out, properties in (
        (_try_consumer, config.consumer),
        (_try_producer, config.producer),
    ):
        problem = _problem(try_out, properties)
        if problem is None:
            continue
        given = [name for name in config.origins if name in properties]
        to_blame = [
            name
            for name in given
            if _problem(try_out, {key: properties[key] for key in properties if key != name})
            is None
        ]
        named = next((name for name in to_blame if name in problem), None)
        names = [named] if named else to_blame or given
        where = ", ".join(config.origins[name] for name in names) or "the worker's own properties"
        raise SettingsError(f"{where}: the Kafka client refuses this: {problem}{_hint(problem)}")


def _problem(try_out: Callable[[Properties], None], properties: Properties) -> str | None:
    try:
        try_out(properties)
    except KafkaException as error:
        return " ".join(str(error.args[0].str()).split())
    except (TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _hint(problem: str) -> str:
    """OpenSSL says of a key that it cannot decrypt that something is wrong with PEM."""
    if "ssl.key" in problem and "PEM lib" in problem:
        return " (kafka.ssl_key_password is wrong or missing, or this is no key in PEM)"
    return ""


def _try_consumer(properties: Properties) -> None:
    Consumer({**_without_login(properties), **_SILENT}, error_cb=_ignore, logger=client_log).close()


def _try_producer(properties: Properties) -> None:
    Producer({**_without_login(properties), **_SILENT}, error_cb=_ignore, logger=client_log).purge()


def _without_login(properties: Properties) -> dict[str, Any]:
    """Give the client a token that nobody issued: a real one is asked for when a broker is."""
    if "oauth_cb" not in properties:
        return dict(properties)
    return {**properties, "oauth_cb": lambda _: ("none", time.time() + 3600)}


def _ignore(_: object) -> None:
    """That nobody answers is told when the cluster is looked for."""
