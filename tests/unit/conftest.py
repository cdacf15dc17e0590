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

# Most of all unit tests' time: they start processes, run whole commands, train, fuzz or simulate at
# length. ``make unit`` leaves them out, ``make test`` has them. A test that takes two seconds alone
# has the mark ``slow`` itself.
SLOW_FILES = {
    "chaos/test_proxy.py",
    "cli/test_main.py",
    "cli/test_private_failures.py",
    "cli/test_verify.py",
    "cli/test_verify_retries.py",
    "contract/test_fuzzed_manifest.py",
    "contract/test_redact.py",
    "contract/test_text.py",
    "core/test_dead_letter_limit.py",
    "core/test_flow.py",
    "core/test_hostile_messages.py",
    "core/test_crash_isolation_simulation.py",
    "desk/accuracy/test_estimate.py",
    "desk/accuracy/test_figures.py",
    "desk/test_settings.py",
    "desk/test_webhook.py",
    "desk/test_work.py",
    "desk/web/test_hostile_messages.py",
    "desk/web/test_openid.py",
    "desk/web/test_roles.py",
    "desk/web/test_signing_in.py",
    "engine/test_cpu_environment.py",
    "engine/test_fork_server.py",
    "lifecycle/test_canary.py",
    "lifecycle/test_cascade_swap.py",
    "lifecycle/test_swap.py",
    "lifecycle/test_swap_simulation.py",
    "observe/test_server.py",
    "observe/test_tracing.py",
    "offline/replay/test_run.py",
    "settings/test_fuzzed_settings.py",
    "stream/test_kafka_membership.py",
    "stream/test_kafka_reach.py",
    "stream/test_partitioner.py",
    "test_app.py",
    "test_ci_steps.py",
    "test_workflows.py",
    "trainer/advice/test_pairs.py",
    "trainer/advice/test_shape.py",
    "trainer/advice/test_split.py",
    "trainer/cascade/test_cascade_command.py",
    "trainer/check/test_check_command.py",
    "trainer/check/test_findings.py",
    "trainer/check/test_folds.py",
    "trainer/check/test_folds_by_group.py",
    "trainer/check/test_suspects.py",
    "trainer/check/test_tokenization.py",
    "trainer/dataset/test_mails.py",
    "trainer/dataset/test_names.py",
    "trainer/dataset/test_near_duplicates.py",
    "trainer/duel/test_baselines.py",
    "trainer/duel/test_linear.py",
    "trainer/duel/test_run.py",
    "trainer/duel/test_trained.py",
    "trainer/duel/test_unseen_holdout.py",
    "trainer/duel/test_verdict_simulated.py",
    "trainer/evaluation/test_audit.py",
    "trainer/evaluation/test_encoders.py",
    "trainer/evaluation/test_evaluate.py",
    "trainer/evaluation/test_unseen_holdout.py",
    "trainer/model/test_chat_template.py",
    "trainer/model/test_completion.py",
    "trainer/model/test_encoder.py",
    "trainer/propose/test_propose.py",
    "trainer/report/test_advice_runs.py",
    "trainer/report/test_dataset_page.py",
    "trainer/report/test_gate_rows.py",
    "trainer/report/test_report.py",
    "trainer/statistics/test_audit.py",
    "trainer/statistics/test_label_noise.py",
    "trainer/statistics/test_paired.py",
    "trainer/statistics/test_thresholds_simulated.py",
    "trainer/statistics/test_traffic.py",
    "trainer/store/test_canary.py",
    "trainer/store/test_killed.py",
    "trainer/store/test_light.py",
    "trainer/store/test_probes.py",
    "trainer/store/test_publish.py",
    "trainer/tasks/test_task_commands.py",
    "trainer/test_cli.py",
    "trainer/test_many_labels.py",
    "trainer/test_what.py",
    "trainer/training/test_checkpoint.py",
    "trainer/training/test_encoder_memory.py",
    "trainer/training/test_encoder_training.py",
    "trainer/training/test_gpu.py",
    "trainer/training/test_head_objective.py",
    "trainer/training/test_lora_head.py",
    "trainer/training/test_memory.py",
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
