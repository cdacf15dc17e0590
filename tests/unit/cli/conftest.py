"""Commands that run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from typer.testing import CliRunner, Result

from tests.support.kafka_world import KafkaWorld
from tests.support.logging_state import configure_for_a_test, logging_restored
from tests.support.mock_kafka import MockKafka
from worker.cli.main import app


@pytest.fixture(autouse=True)
def restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore logging: a command configures it for good."""
    monkeypatch.setattr("worker.cli.load.configure_logging", configure_for_a_test)
    with logging_restored():
        yield


@pytest.fixture
def world(broker: MockKafka) -> KafkaWorld:
    """Topics of an input and its results, on a broker in this process."""
    return KafkaWorld(broker.servers, create_topic=broker.create_topic)


@pytest.fixture
def run(world: KafkaWorld) -> Callable[..., Result]:
    """Runs a command of the worker with the settings of the world's topics."""

    def invoke(command: str, *options: str) -> Result:
        settings = {**world.settings, "kafka.start_timeout_s": "5"}
        flags = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
        return CliRunner().invoke(app, [command, *flags, *options])

    return invoke


@pytest.fixture
def verify(run: Callable[..., Result]) -> Callable[..., Result]:
    """Runs ``clerk-worker verify``."""
    return partial(run, "verify")
