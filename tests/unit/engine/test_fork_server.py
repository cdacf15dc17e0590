"""A fork server in a separate process, with a standard module instead of vLLM."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.engine import fork_server
from worker.engine.fork_server import lean_imports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of deaths"),
]

ROOT = Path(__file__).parents[3]

OWNER = """
import multiprocessing, os, sys, time
from multiprocessing import forkserver
from worker.engine import fork_server
from worker.engine.processes import die_with_parent

def report(connection, module):
    die_with_parent()
    connection.send((os.getppid(), module in sys.modules, len(os.listdir("/proc/self/task"))))
    time.sleep(60)

def server():
    return forkserver._forkserver._forkserver_pid

def fork(context, module="tomllib"):
    mine, theirs = context.Pipe()
    process = context.Process(target=report, args=(theirs, module))
    process.start()
    return process, mine.recv()

if __name__ == "__main__":
"""


Owner = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """Run lines in a process with a fork server; it is killed at the test's end."""
    started: list[subprocess.Popen[str]] = []

    def run(*lines: str, **modules: str) -> subprocess.Popen[str]:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        script = tmp_path / "owner.py"
        script.write_text(OWNER + "".join(f"    {line}\n" for line in lines))
        path = os.pathsep.join([str(ROOT), str(tmp_path)])
        started.append(
            subprocess.Popen(
                [sys.executable, str(script)],
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def gone(pid: int, within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def words(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    return out.split()


def test_a_fork_has_what_the_server_has_imported(owner: Owner) -> None:
    process = owner(
        'fork_server.start({}, ["tomllib"])',
        "child, (parent, imported, threads) = fork(fork_server.context({}))",
        "child.kill()",
        "print(parent == server(), imported, threads)",
    )
    assert words(process) == ["True", "True", "1"]


def test_a_server_with_another_environment_is_not_used(owner: Owner) -> None:
    """OpenMP has read its variables already."""
    process = owner(
        'print(fork_server.start({"OMP_NUM_THREADS": "2"}, ["tomllib"]))',
        'print(fork_server.start({"OMP_NUM_THREADS": "2"}))',
        'print(fork_server.start({"OMP_NUM_THREADS": "3"}))',
        'print(fork_server.context({"OMP_NUM_THREADS": "3"}))',
    )
    assert words(process) == ["True", "True", "False", "None"]


@pytest.mark.parametrize(
    "module",
    [
        "import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()",
        "raise OSError",
    ],
)
def test_a_server_with_a_thread_or_without_its_module_is_not_used(
    owner: Owner, module: str
) -> None:
    """A lock held by the thread would stay locked in the fork for ever."""
    process = owner('fork_server.start({}, ["odd"])', "print(fork_server.context({}))", odd=module)
    assert words(process) == ["None"]


def test_kill_9_leaves_neither_server_nor_fork(owner: Owner) -> None:
    process = owner(
        'fork_server.start({}, ["tomllib"])',
        "child, _ = fork(fork_server.context({}))",
        "print(server(), child.pid, flush=True)",
        "time.sleep(60)",
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert not any(gone(pid, 0.1) for pid in pids)
    process.kill()
    process.wait()
    assert all(map(gone, pids))


def test_kill_9_leaves_no_server_that_is_still_importing(owner: Owner) -> None:
    process = owner(
        'fork_server.start({}, ["slow"])',
        "print(server(), flush=True)",
        "time.sleep(60)",
        slow="import time\ntime.sleep(60)",
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert gone(pid)


def test_ctrl_c_at_the_terminal_stops_only_the_owner(owner: Owner) -> None:
    process = owner(
        'fork_server.start({}, ["tomllib"])',
        "child, _ = fork(fork_server.context({}))",
        "print(server(), child.pid, flush=True)",
        "time.sleep(60)",
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert not any(gone(pid, 0.3) for pid in pids)
    process.kill()
    process.wait()
    assert all(map(gone, pids))


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_OPTIONAL", ("this", "json"))
    monkeypatch.delitem(sys.modules, "this", raising=False)


def test_one_that_is_not_imported_yet_is_hidden_for_a_while() -> None:
    with lean_imports():
        assert importlib.util.find_spec("this") is None
        with pytest.raises(ImportError):
            importlib.import_module("this")
    assert importlib.util.find_spec("this") is not None
