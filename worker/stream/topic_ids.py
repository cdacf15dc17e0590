"""Whether a topic is still the one that it was.

A topic that was deleted and created again has the same name, and its offsets begin at 0 again. Only
its id differs (KIP-516, Kafka 2.8).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from worker.errors import StreamFailed
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_types import client_log, describe

_log = structlog.get_logger("worker.stream")

CHECK_S = 10.0
"""Time between two checks while nothing is suspicious."""

_AGAIN_S = 1.0
_NO_ID = "A" * 22  # what a broker before 2.8 answers: zero, in base64

Ask = Callable[[Collection[str]], Mapping[str, "Future[Any]"]]


def ask_cluster(config: KafkaConfig) -> Ask:
    """Return a function that requests descriptions of topics, without waiting for them."""
    admin: AdminClient | None = None

    def ask(topics: Collection[str]) -> Mapping[str, Future[Any]]:
        nonlocal admin
        if admin is None:
            quiet = {"log_level": 2, **config.common}
            admin = AdminClient(quiet, error_cb=lambda _: None, logger=client_log)
        admin.poll(0)  # it asks for a new token in a callback
        return admin.describe_topics(TopicCollection(list(topics)))

    return ask


class TopicIds:
    """The ids of the assigned topics of ``cluster_id``. Only ``wait_for`` blocks."""

    def __init__(self, ask: Ask, cluster_id: str = "") -> None:
        self._ask = ask
        self._cluster_id = cluster_id
        self._asked: dict[str, Future[Any]] = {}
        self._asked_at: dict[str, float] = {}
        self._ids: dict[str, str] = {}
        self._doubted: set[str] = set()

    def __contains__(self, topic: str) -> bool:
        """Return whether nothing speaks against the topic being the one that it was."""
        return topic not in self._doubted

    def knows(self, topic: str) -> bool:
        """Return whether the topic's id is known."""
        return topic in self._ids

    def doubt(self, topic: str) -> None:
        """Ask for the id again: the topic's offsets came back. A request under way is too old."""
        if topic not in self._doubted:
            self._doubted.add(topic)
            self._request((topic,))

    def check(self, topics: Collection[str]) -> None:
        """Compare the ids that have arrived, and request those that are due. Raises StreamFailed
        if a topic was created again, or if that cannot be told of a doubted one."""
        for topic in [topic for topic, answer in self._asked.items() if answer.done()]:
            self._compare(topic, self._asked.pop(topic))
        now = time.monotonic()
        if due := [each for each in topics if each not in self._asked and self._is_due(each, now)]:
            self._request(due)

    def wait_for(self, topics: Collection[str], timeout_s: float) -> Mapping[str, str]:
        """Return the ids of these topics, as far as they are known after ``timeout_s`` at most.

        With the cluster's id: a mirrored cluster has other topics, and may get the group's offsets.
        """
        if missing := [each for each in topics if not self.knows(each) and each not in self._asked]:
            self._request(missing)
        wait([self._asked[topic] for topic in topics if topic in self._asked], timeout_s)
        self.check(())
        return {topic: f"{self._cluster_id}/{known}" for topic, known in self._ids.items()}

    def _is_due(self, topic: str, now: float) -> bool:
        wait_s = _AGAIN_S if topic in self._doubted else CHECK_S
        return now - self._asked_at.get(topic, -CHECK_S) >= wait_s

    def _request(self, topics: Iterable[str]) -> None:
        now = time.monotonic()
        for topic, answer in self._ask(list(topics)).items():
            self._asked[topic], self._asked_at[topic] = answer, now

    def _compare(self, topic: str, answer: Future[Any]) -> None:
        try:
            found = str(answer.result(timeout=0).topic_id or _NO_ID)
        except KafkaException as error:  # asked again; a deleted topic ends the worker elsewhere
            log = _log.warning if topic in self._doubted else _log.debug
            log("stream.topic_id_unknown", topic=topic, error=describe(error.args[0]))
            return
        # Without ids, or with brokers of which only some have them, as in an upgrade.
        cannot_tell = found == _NO_ID
        known = found if cannot_tell else self._ids.setdefault(topic, found)
        why = ""
        if known != found:
            why = (
                "was deleted and created again. Restart the worker: it reads the new topic from "
                "its beginning"
            )
        elif cannot_tell and topic in self._doubted:
            why = (
                "delivered offsets a second time, and this broker cannot tell whether it was "
                "deleted and created again (Kafka before 2.8). If it was, reset the group's "
                "offsets to the earliest; then restart the worker"
            )
        if why:
            raise StreamFailed(
                f"the topic {topic!r} {why} (docs/operations.md, Recreating a topic)"
            )
        self._doubted.discard(topic)
