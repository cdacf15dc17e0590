"""Hypothesis, threads and time for all unit tests."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from tests.support.mock_kafka import MockKafka, mock_kafka

# On top of what Hypothesis chose by itself: its "ci" profile where CI is set. A busy machine is
# no failure, so examples have no deadline.
settings.register_profile("unit", parent=settings(), deadline=None)
settings.register_profile("quick", parent=settings.get_profile("unit"), max_examples=25)
settings.load_profile("unit")

MOST_CPU_S = 15  # ten on a quiet machine: next to other load the same work takes more of its time
MANY_MODULES = 200

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples in ``make unit``, which runs often. ``make test`` tries all."""
    if "not slow" in config.option.markexpr:
        settings.load_profile("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even load the slow files where ``make unit`` leaves them out: each of its processes
    would import for seconds what none of them runs."""
    skips = "not slow" in config.option.markexpr and collection_path.suffix == ".py"
    return True if skips and is_slow(collection_path) else None


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what has been imported: it would visit a million objects
    each time."""
    gc.freeze()


def is_slow(path: Path) -> bool:
    """Whether all tests of a file are slow: they start processes, run whole commands, train, fuzz
    or simulate at length. ``make unit`` leaves them out."""
    marked = r"^pytestmark = (\[\s*)?pytest\.mark\.slow\b"
    return re.search(marked, path.read_text("utf-8"), re.MULTILINE) is not None


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, here and in processes that a test starts.

    Matrices are tiny here: threads that wait for each other at every one of them cost up to ten
    times the computation, and the other cores have tests of their own to run.
    """
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patched:
        for name in THREADS:
            patched.setenv(name, "1")
        yield


@pytest.fixture
def broker() -> Iterator[MockKafka]:
    """A broker that speaks Kafka's protocol, in this process, in two milliseconds."""
    with mock_kafka() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a unit test that takes long and is not marked so: everybody waits for it, each time.

    Time of the processor, of processes that the test has waited for too: a machine may be busy. The
    first to load a large library pays for all that come after it, and is let off.
    """
    before, loaded = cpu_seconds(), len(sys.modules)
    yield
    spent, imported = cpu_seconds() - before, len(sys.modules) - loaded
    if spent > MOST_CPU_S and imported < MANY_MODULES and item.get_closest_marker("long") is None:
        pytest.fail(
            f"{spent:.1f} s of CPU time, and a unit test may take {MOST_CPU_S}: make it cheaper, "
            "or mark it with pytest.mark.long"
        )


def cpu_seconds() -> float:
    """Return what this process and the children it has waited for have computed so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
