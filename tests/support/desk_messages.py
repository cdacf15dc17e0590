"""Messages in Kafka and a worker's results for them, for a whole desk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Producer

from tests.support.desk_results import result
from worker.contract.taxonomy import Taxonomy

Message = tuple[str, Mapping[str, Any]]
"""A text and what is special about its result: uncertain if it has reasons."""


def publish_results(
    servers: str, topics: Mapping[str, str], taxonomy: Taxonomy, messages: Sequence[Message]
) -> None:
    """Put messages into the topic "in" and a worker's results into "review" if uncertain, else
    into "labels"."""
    producer = Producer({"bootstrap.servers": servers, "log_level": 0})
    about = {"name": taxonomy.name, "version": taxonomy.version}
    reference = {**about, "digest": taxonomy.digest}
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for offset, (text, changes) in enumerate(messages):
        value = json.dumps({"id": f"T-{offset}", "message": text}).encode()
        producer.produce(topics["in"], value, f"customer-{offset}", partition=0)
        label = str(changes.get("label", taxonomy.names[offset % len(taxonomy.names)]))
        other = taxonomy.names[(taxonomy.names.index(label) + 1) % len(taxonomy.names)]
        fields: dict[str, Any] = {
            "message_id": f"T-{offset}",
            "label": label,
            "confidence": 0.62,
            "scores": {label: 0.62, other: 0.31},
            "taxonomy": reference,
            "labelled_at": now,
        }
        kind = "review" if changes.get("reasons") else "labels"
        record = result(topics["in"], offset, **{**fields, **changes})
        producer.produce(topics[kind], record, f"customer-{offset}")
        producer.poll(0)
    assert producer.flush(60) == 0
