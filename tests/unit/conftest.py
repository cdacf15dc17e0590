"""Hypothesis, threads and time for all unit tests."""

from __future__ import annotations

import gc
import os
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
settings.load_profile("unit")

MOST_CPU_S = 10
MANY_MODULES = 200

# More than half of all unit tests' time: they start processes, train, fuzz or simulate at length.
# ``make unit`` leaves them out, ``make test`` has them. A test that takes two seconds alone has the
# mark ``slow`` itself.
SLOW_FILES = {
    "cli/test_main.py",
    "cli/test_private_failures.py",
    "contract/test_fuzzed_manifest.py",
    "core/test_flow.py",
    "core/test_hostile_messages.py",
    "core/test_quarantine_simulation.py",
    "desk/test_settings.py",
    "engine/test_cpu_environment.py",
    "engine/test_fork_server.py",
    "lifecycle/test_swap_simulation.py",
    "observe/test_tracing.py",
    "offline/replay/test_run.py",
    "settings/test_fuzzed_settings.py",
    "test_app.py",
    "test_workflows.py",
    "trainer/advice/test_pairs.py",
    "trainer/advice/test_shape.py",
    "trainer/advice/test_split.py",
    "trainer/cascade/test_cascade_command.py",
    "trainer/check/test_findings.py",
    "trainer/check/test_folds.py",
    "trainer/check/test_folds_by_group.py",
    "trainer/dataset/test_names.py",
    "trainer/duel/test_baselines.py",
    "trainer/duel/test_run.py",
    "trainer/duel/test_trained.py",
    "trainer/duel/test_verdict_simulated.py",
    "trainer/evaluation/test_encoders.py",
    "trainer/evaluation/test_evaluate.py",
    "trainer/model/test_completion.py",
    "trainer/model/test_encoder.py",
    "trainer/propose/test_propose.py",
    "trainer/report/test_dataset_page.py",
    "trainer/statistics/test_audit.py",
    "trainer/statistics/test_label_noise.py",
    "trainer/statistics/test_thresholds_simulated.py",
    "trainer/store/test_killed.py",
    "trainer/store/test_light.py",
    "trainer/store/test_publish.py",
    "trainer/tasks/test_task_commands.py",
    "trainer/test_many_labels.py",
    "trainer/test_what.py",
    "trainer/training/test_checkpoint.py",
    "trainer/training/test_encoder_memory.py",
    "trainer/training/test_encoder_training.py",
    "trainer/training/test_gpu.py",
    "trainer/training/test_lora_head.py",
    "trainer/training/test_memory_peak.py",
    "trainer/training/test_onnx_files.py",
    "trainer/training/test_precision.py",
    "trainer/training/test_served.py",
    "trainer/training/test_sweep.py",
    "trainer/training/test_train.py",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even load the slow files where ``make unit`` leaves them out: each of its processes
    would import for seconds what none of them runs."""
    return True if _is_slow(collection_path) and "not slow" in config.option.markexpr else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the files that take most of the time."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what has been imported: it would visit a million objects
    each time."""
    gc.freeze()


def _is_slow(path: Path) -> bool:
    here = Path(__file__).parent
    return path.is_relative_to(here) and path.relative_to(here).as_posix() in SLOW_FILES


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
