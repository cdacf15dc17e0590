"""The stream of sample messages that compose.yaml runs next to a worker."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from worker.demo.broker import LocalBroker
from worker.demo.client import Watcher, create_demo_topics
from worker.demo.models import demo_samples
from worker.demo.plan import DEAD, INPUT, OUTPUT, REVIEW

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def broker() -> Iterator[str]:
    """Its own Kafka with the demo's topics, because their names are fixed."""
    with LocalBroker() as local:
        create_demo_topics(local.bootstrap_servers, dict.fromkeys((INPUT, OUTPUT, REVIEW, DEAD), 1))
        yield local.bootstrap_servers


def generate(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.demo.generate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_publishes_at_its_rate_until_stopped(broker: str) -> None:
    """Twenty a second for some seconds, then SIGTERM: exit 0, and no message text in the output."""
    process = generate("--bootstrap-servers", broker, "--rate", "20")
    # Watches the input: the ids of what was published, as a worker would read them.
    watcher = Watcher(broker, {INPUT: "dead letter"})
    began, arrived = time.monotonic(), set[str]()
    while len(arrived) < 60 and time.monotonic() - began < 60:
        arrived |= {seen.message_id for seen in watcher.poll(0.2)}
    took = time.monotonic() - began
    watcher.close()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert len(arrived) >= 60
    assert took > 2  # 60 at 20 a second: not all at once
    assert "messages published, 0 results seen" in output
    assert not [sample.message for sample in demo_samples(330) if sample.message in output]


def test_a_rate_of_0_is_refused() -> None:
    process = generate("--bootstrap-servers", "localhost:1", "--rate", "0")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert output.splitlines()[-1].endswith("error: --rate is 0.0: it must be above 0")
