"""What a codec costs: bytes of a result on the broker's disk, and CPU time to write it.

    python -m tests.bench.codecs

Results of a made-up adapter with 20 labels, in transactions of 250 to 12 partitions of the demo's
broker, each codec three times in turn.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from worker.demo.broker import LocalBroker

RECORDS, BATCH, PARTITIONS, ROUNDS = 20_000, 250, 12, 3
CODECS = ("none", "gzip", "zstd", "lz4", "snappy")
LABELS = [f"label_{number:02}" for number in range(20)]


def make_results() -> list[bytes]:
    draw = random.Random(1)
    return [
        json.dumps(
            {
                "id": f"support.messages-{at % PARTITIONS}-{at}",
                "source": {"topic": "support.messages", "partition": at % PARTITIONS, "offset": at},
                "message_id": f"t{at}",
                "label": draw.choice(LABELS),
                "confidence": round(draw.random(), 6),
                "scores": {label: round(draw.random(), 6) for label in LABELS},
                "off_label_mass": round(draw.random() / 100, 6),
                "review": {"needed": draw.random() < 0.15, "reasons": []},
                "adapter": {"name": "shop", "digest": "ab" * 32, "precision": "float32"},
                "taxonomy": {"name": "shop", "version": "1", "digest": "cd" * 32},
                "labelled_at": f"2026-12-01T10:{at % 60:02}:00.{draw.randrange(1000):03}Z",
                "latency_ms": draw.randrange(5, 900),
            }
        ).encode()
        for at in range(RECORDS)
    ]


def main() -> None:
    results = make_results()
    print("| codec | bytes a result | CPU, us | results/s |\n|---|---|---|---|")
    with LocalBroker() as broker:
        servers: dict[str, str | int | float | bool] = {
            "bootstrap.servers": broker.bootstrap_servers
        }
        admin = AdminClient(servers)
        for round_ in range(ROUNDS):
            for codec in CODECS:
                topic = f"out-{codec}-{round_}"
                for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
                    made.result()
                options = {"compression.type": codec, "transactional.id": topic, "linger.ms": 5}
                producer = Producer(servers | options)
                producer.init_transactions()
                cpu, began = time.process_time(), time.monotonic()
                for start in range(0, RECORDS, BATCH):
                    producer.begin_transaction()
                    for at in range(start, start + BATCH):
                        producer.produce(topic, results[at], partition=at % PARTITIONS)
                    producer.commit_transaction()
                cpu, took = time.process_time() - cpu, time.monotonic() - began
                logs = Path(tempfile.gettempdir()).rglob(f"{topic}-*/*.log")
                size = sum(path.stat().st_size for path in logs) / RECORDS
                print(
                    f"| {codec} | {size:.0f} | {cpu / RECORDS * 1e6:.0f} | {RECORDS / took:.0f} |"
                )


if __name__ == "__main__":
    main()
