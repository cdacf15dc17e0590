"""``clerk-worker topics`` against a real broker, as the chart's job runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from confluent_kafka.admin import AdminClient

from tests.support.processes import worker_command


def make_topics(*sets: str) -> subprocess.CompletedProcess[str]:
    flags = [part for setting in sets for part in ("-s", setting)]
    return worker_command("topics", {}, *flags, timeout_s=60)


def test_missing_topics_are_created_and_others_left_alone(
    bootstrap_servers: str, topic: Callable[[str], str]
) -> None:
    """Run again with another number of partitions, it changes nothing and succeeds."""
    names = {short: topic(short) for short in ("in", "out", "review", "dead")}
    given = (
        f"kafka.bootstrap_servers={bootstrap_servers}",
        f"kafka.input_topics={names['in']}", f"kafka.output_topic={names['out']}",
        f"kafka.review_topic={names['review']}", f"kafka.dead_letter_topic={names['dead']}",
    )  # fmt: skip
    done = make_topics(*given, "kafka.topic_partitions=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{bootstrap_servers} has {', '.join(names.values())}"
    again = make_topics(*given, "kafka.topic_partitions=5")
    assert again.returncode == 0, again.stderr
    found = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=10).topics
    assert [len(found[name].partitions) for name in names.values()] == [3, 3, 3, 3]
