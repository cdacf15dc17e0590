"""The whole desk on real Kafka, from settings: an uncertain label in, a correction out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from desk.app import background, open_database, open_settings_desk
from desk.core.items import Queue
from desk.service import people, reviewing
from desk.service.viewing import Task
from desk.settings import load_settings
from desk.store.database import Database
from tests.support.desk_results import result
from tests.support.topics import create_topics, read_corrections
from worker.contract.taxonomy import Taxonomy


def test_an_uncertain_label_becomes_a_correction(
    database: Database, bootstrap_servers: str, topic: Callable[[str], str]
) -> None:
    """The desk shows the message, a reviewer decides, and a router can read the correction."""
    names = {name: topic(name) for name in ("in", "labels", "review", "corrections")}
    url = database.engine.url.render_as_string(hide_password=False)
    flags = {
        "database.url": url,
        "kafka.bootstrap_servers": bootstrap_servers,
        "kafka.output_topic": names["labels"],
        "kafka.review_topic": names["review"],
        "kafka.corrections_topic": names["corrections"],
        "kafka.create_topics": "true",
        "kafka.client.log_level": "0",
        "review.publish_delay_s": "0",
        "review.double_share": "0",
        "audit.share": "0",
    }
    settings = load_settings(None, [f"{key}={value}" for key, value in flags.items()]).settings
    create_topics(bootstrap_servers, [names[name] for name in ("in", "labels", "review")])
    taxonomy = Taxonomy.from_toml(settings.project.taxonomy)
    label, other = taxonomy.names[:2]
    producer = Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    producer.produce(names["in"], b'{"id": "T-1", "message": "where is my parcel?"}')
    reference = {"name": taxonomy.name, "version": taxonomy.version, "digest": taxonomy.digest}
    fields: dict[str, Any] = {"label": label, "scores": {label: 0.7}, "taxonomy": reference}
    value = result(names["in"], 0, message_id="T-1", reasons=["low_confidence"], **fields)
    producer.produce(names["review"], value, b"customer-1")
    assert producer.flush(30) == 0

    opened = open_database(settings)
    desk = open_settings_desk(settings, opened)
    ann = people.arrive(desk, "ann", "Ann")
    with background(settings, desk) as shift:

        def wait_for_item() -> Task:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                task = reviewing.next_item(desk, ann, Queue())
                if task is not None:
                    return task
                assert not shift.wait(0.2)
            raise AssertionError("no item came")

        task = wait_for_item()
        assert task.text == "where is my parcel?"
        reviewing.decide(
            desk,
            ann,
            task.item_id,
            reviewing.Said("one", "label", other),
        )
        until = time.monotonic() + 60
        while not (read := read_corrections(bootstrap_servers, names["corrections"])):
            assert time.monotonic() < until
            assert not shift.wait(0.2)
    opened.close()
    (correction,) = read
    assert (correction.label, correction.machine.label) == (other, label)
    assert correction.message_id == "T-1"
    assert correction.decided_by == ann.pseudonym
