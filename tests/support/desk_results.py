"""Output records as workers write them, for the desk's inbox."""

from __future__ import annotations

import json
from typing import Any

from tests.support.desk_world import TAXONOMY
from worker.contract.records import record_id


def result(topic: str, offset: int, *, partition: int = 0, **changes: Any) -> bytes:
    """The output record of the message at this place; in doubt where ``reasons`` are given."""
    reasons = changes.pop("reasons", [])
    value: dict[str, Any] = {
        "schema_version": 1,
        "id": record_id(topic, partition, offset),
        "source": {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": "2026-02-02T08:00:00.000Z",
        },
        "message_id": f"T-{partition}-{offset}",
        "label": "delivery",
        "confidence": 0.7,
        "scores": {"delivery": 0.7, "refund": 0.2, "payment": 0.1, "other": 0.0},
        "off_label_mass": 0.01,
        "review": {"needed": bool(reasons), "reasons": list(reasons)},
        "truncated": False,
        "adapter": {"name": "shop", "digest": "a" * 64, "precision": "int8"},
        "taxonomy": {"name": "shop", "version": "1", "digest": TAXONOMY.digest},
        "base_model": {"name": "base", "revision": "1"},
        "labelled_at": "2026-02-02T08:00:01.000Z",
        "latency": {"queue_s": 0.0, "engine_s": 0.0},
        "worker_version": "0.1.0",
    }
    return json.dumps({**value, **changes}).encode()
