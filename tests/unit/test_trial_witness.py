"""The file that proves a process's death in a trial."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from worker.core.crash_isolation import ProvenDeath
from worker.records.types import TopicPartition
from worker.trial_witness import FileWitness

SOURCE = TopicPartition("in", 3)
DEATH = ProvenDeath(SOURCE, 17)

IN_A_TRIAL = """
import sys, time
from pathlib import Path
from worker.records.types import TopicPartition
from worker.trial_witness import FileWitness
witness = FileWitness(Path(sys.argv[1]), "group")
for offset in range(17):
    witness.begin(TopicPartition("in", 3), 1000 + offset)
    witness.end()
witness.begin(TopicPartition("in", 3), 17)
if sys.argv[2] == "ended":
    witness.end()
print("in a trial", flush=True)
time.sleep(60)
"""


def process(folder: Path, how: str = "goes on") -> subprocess.Popen[str]:
    """Another process that has begun a trial."""
    started = subprocess.Popen(
        [sys.executable, "-c", IN_A_TRIAL, str(folder), how], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "in a trial\n"
    return started


def kill(started: subprocess.Popen[str]) -> None:
    started.send_signal(signal.SIGKILL)
    started.communicate()


def test_a_process_that_was_killed_in_a_trial_is_found_once(tmp_path: Path) -> None:
    started = process(tmp_path)
    assert FileWitness(tmp_path, "group").take_deaths() == []
    kill(started)
    assert FileWitness(tmp_path, "group").take_deaths() == [DEATH]
    assert FileWitness(tmp_path, "group").take_deaths() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_was_killed_between_two_trials_proves_nothing(tmp_path: Path) -> None:
    kill(process(tmp_path, "ended"))
    assert FileWitness(tmp_path, "group").take_deaths() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_another_groups_and_another_hosts_files_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock may not work across hosts."""
    kill(process(tmp_path))
    assert FileWitness(tmp_path, "another").take_deaths() == []
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "another-host")
        assert FileWitness(tmp_path, "group").take_deaths() == []
    assert FileWitness(tmp_path, "group").take_deaths() == [DEATH]


def test_a_folder_that_cannot_be_written_is_reported_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    witness = FileWitness(tmp_path / "file" / "trials", "group")
    for offset in range(3):
        witness.begin(SOURCE, offset)
        witness.end()
    assert witness.take_deaths() == []
    assert capsys.readouterr().out.count("crash_isolation.no_witness") == 1
