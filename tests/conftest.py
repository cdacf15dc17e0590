"""Services that tests need: which they are, and how they start.

Kafka: CLERK_TEST_BOOTSTRAP_SERVERS names a cluster; else a local one is started, once a run. The
base model is unpacked once into the cache folder; the adapter ships with the project.

Where tests run in several processes, each that needs Kafka starts a broker of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.demo.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.samples import adapter_dir


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Name the process that a test belongs in, for ``--dist=loadgroup``, before xdist reads it.

    Whatever needs the model is in one of them: two engines at a time would only wait for each
    other's cores, and all but the first start of a process take little. The others go by file.
    """
    for item in items:
        model = "base_model_dir" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("model" if model else item.path.stem))
    yield


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real Kafka cluster."""
    if named := os.environ.get("CLERK_TEST_BOOTSTRAP_SERVERS"):
        yield named
        return
    with LocalBroker() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def topic() -> Callable[[str], str]:
    """Names for topics that no other test uses."""
    run = uuid.uuid4().hex[:10]
    return lambda name: f"test.{run}.{name}"


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """The demo's base model."""
    return ensure_base_model()


@pytest.fixture(scope="session")
def demo_adapter_dir() -> Path:
    """The adapter that ships with the project."""
    return adapter_dir()
