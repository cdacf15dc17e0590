"""Services that tests need, and the order in which tests run.

Kafka: the cluster in CLERK_TEST_BOOTSTRAP_SERVERS, or a local broker, started once a run. The base
model is unpacked once into the cache folder; the adapter ships with the project.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from worker.common.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.models import adapter_dir

# Tests with a real engine: whole files, or single tests.
_WITH_ENGINE = (
    "test_demo.py",
    "test_desk_demo.py",
    "test_end_to_end.py",
    "test_engine.py",
    "test_gpu_smoke.py",
    "test_places.py",
    "test_swap.py",
    "test_swap_kinds.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist=loadscope``: give tests to processes by file, all with an engine to one
    process, and all on the secured broker to one. Two engines at once would compete for the cores,
    and only a process's first start is slow. (``--dist=loadgroup`` does nothing with pytest 9.2:
    pytest-xdist's issue 1386.)"""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # keep pytest_collection_modifyitems' order

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if _is_secured(nodeid):
                return "security"
            return "engine" if _has_engine(nodeid) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start one broker for all processes of pytest-xdist: each Java machine compiles for half a
    minute what the other ones have compiled too."""
    wanted = any("ports" in word or "e2e" in word for word in node.config.args)
    if wanted and not os.environ.get("CLERK_TEST_BOOTSTRAP_SERVERS"):
        node.workerinput["bootstrap_servers"] = _shared_broker().bootstrap_servers


@cache
def _shared_broker() -> LocalBroker:
    """A broker that ends with this process."""
    broker = LocalBroker()
    broker.start()
    return broker


def _has_engine(nodeid: str) -> bool:
    return nodeid.rpartition("/")[2].startswith(_WITH_ENGINE)


def _is_secured(nodeid: str) -> bool:
    return "ports/security/" in nodeid


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """When only long tests run, do not load files without any: that would take longer than many of
    the tests."""
    if config.option.markexpr != "long" or not collection_path.name.startswith("test_"):
        return None
    return None if collection_path.is_dir() or _names_long(collection_path) else True


def _names_long(path: Path) -> bool:
    return re.search(r"\bmark\.long\b|\bmostly_long\b", path.read_text("utf-8")) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests with an engine first, then those on the secured broker, then those with Kafka: they
    take longest, and one that begins last would leave the other processes idle."""
    unseen = {
        item.path
        for item in items
        if item.get_closest_marker("long") and not _names_long(item.path)
    }
    assert not unseen, f"long tests that make nightly would not find: {unseen}"
    items.sort(
        key=lambda item: (
            not _has_engine(item.nodeid),
            not _is_secured(item.nodeid),
            "/ports/" not in item.path.as_posix(),
        )
    )


@pytest.fixture(scope="session")
def bootstrap_servers(request: pytest.FixtureRequest) -> Iterator[str]:
    """A real Kafka cluster."""
    given = getattr(request.config, "workerinput", {}).get("bootstrap_servers")
    if named := given or os.environ.get("CLERK_TEST_BOOTSTRAP_SERVERS"):
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
