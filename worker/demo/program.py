"""Start a worker or a desk as a separate process and watch its log. It ends with this process, even
after a kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_READY_S = 600.0
_STOP_S = 60.0


class ProgramFailed(RuntimeError):
    """A program ended, or does not answer; the text ends with its last log lines."""


class Program:
    """A running worker or desk; its log is a file of JSON lines. ``name`` is for errors."""

    def __init__(self, name: str, child: ChildProcess, log_path: Path) -> None:
        self.name = name
        self.child = child
        self.log_path = log_path

    @property
    def url(self) -> str | None:
        """The URL of a worker's HTTP server; None before it listens."""
        return self.logged("http.listening", "url")

    def wait_until_ready(self, event: str = "worker.ready") -> None:
        """Wait until a worker's model is warm, or with ``event="partitions.assigned"`` until it
        reads. Raises ProgramFailed."""
        self.wait_for(event, _READY_S)

    def wait_for(self, event: str, within_s: float) -> None:
        """Wait until it has logged this event. Raises ProgramFailed."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if event in self.events():
                return
            self.check()
            time.sleep(0.1)
        raise ProgramFailed(f"{self.name} was not ready within {within_s:.0f} s{self._end()}")

    def events(self) -> list[str]:
        """Return the names of all logged events."""
        return [str(line.get("event")) for line in self._logged()]

    def logged(self, event: str, field: str) -> str | None:
        """Return a field of the first such event; None if there is none yet."""
        lines = (line for line in self._logged() if line.get("event") == event)
        return next((str(line[field]) for line in lines), None)

    def check(self) -> None:
        """Raise ProgramFailed if it has ended."""
        code = self.child.exit_code()
        if code is not None:
            raise ProgramFailed(f"{self.name} ended with exit code {code}{self._end()}")

    def stop(self) -> int:
        """Send SIGTERM, wait until it has drained, and return its exit code."""
        return self.child.stop(_STOP_S)

    def wait_until_done(self, within_s: float) -> None:
        """Wait until it exits with 0; kill it after ``within_s``. Raises ProgramFailed."""
        code = self.child.wait(within_s)
        if code != 0:
            raise ProgramFailed(f"{self.name} ended with exit code {code}{self._end()}")

    def _logged(self) -> Iterator[dict[str, Any]]:
        for line in self._lines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event

    def _end(self) -> str:
        *_, last = (None, *self._logged())
        if last is not None and str(last["event"]).endswith(".failed") and "error" in last:
            return f"\n  {last['error']}"  # one readable line instead of the last eight
        return "".join(f"\n  {line}" for line in self._lines()[-8:])

    def _lines(self) -> list[str]:
        return self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()


@contextmanager
def start_program(
    name: str,
    command: Sequence[str],
    settings: Mapping[str, str],
    log_path: Path,
) -> Iterator[Program]:
    """Start Python with a command and settings as flags (values in TOML syntax); at the end stop
    it, and kill it if it does not."""
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    log_path.touch()
    child = ChildProcess(
        [sys.executable, *command, *flags], cwd=Path.cwd(), log_path=log_path, env=os.environ
    )
    try:
        yield Program(name, child, log_path)
    finally:
        child.stop(_STOP_S)


@contextmanager
def start_worker(
    settings: Mapping[str, str],
    log_path: Path,
    command: tuple[str, ...] = ("-m", "worker", "run"),
) -> Iterator[Program]:
    """Start the worker with settings as flags (values in TOML syntax); stop it at the end."""
    with start_program("the worker", command, settings, log_path) as program:
        yield program


_LAUNCHER = Path(__file__).with_name("die_with_parent.py")


class ChildProcess:
    """A command in a separate session, so that Ctrl-C in the terminal does not reach it.

    Its output is appended to a log file. Without ``env`` its environment is only a UTF-8 locale:
    the user's variables (PATH, JVM options) cannot change how it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log_path: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. Raises OSError if the folder or the log file cannot be used."""
        self._command = list(command)
        self._cwd = cwd
        self._log_path = log_path
        self._env = dict(env) if env is not None else {"LC_ALL": "C.UTF-8"}
        self._released = threading.Event()
        self._started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel sends the death signal when the *thread* that started the child ends, not the
        # process. The caller's thread may be short-lived, so a thread that only waits starts it.
        self._owner = threading.Thread(target=self._own, name="broker-parent", daemon=True)
        self._owner.start()
        try:
            self._started.result()
        except KeyboardInterrupt:
            self.kill()
            raise

    def _own(self) -> None:
        try:
            with self._log_path.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
                    # -I and -S: the launcher needs no packages, and starts faster without them.
                    [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *self._command],
                    cwd=self._cwd,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._started.set_exception(error)
            return
        self._started.set_result(process)
        self._released.wait()

    @property
    def pid(self) -> int:
        """The process id, which stays the command's own."""
        return self._started.result().pid

    def exit_code(self) -> int | None:
        """Return None while it runs, then its exit code (negative: the signal that killed it)."""
        return self._collected(self._started.result().poll())

    def wait(self, timeout_s: float) -> int:
        """Return its exit code; after ``timeout_s`` kill it."""
        try:
            code = self._started.result().wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._collected(code)
        return code

    def stop(self, grace_s: float) -> int:
        """Send SIGTERM, and SIGKILL after ``grace_s``; return its exit code."""
        self._started.result().terminate()
        return self.wait(grace_s)

    def kill(self) -> int:
        """Send SIGKILL, wait until it is gone, and return its exit code."""
        process = self._started.result()
        process.kill()
        code = process.wait()
        self._collected(code)
        return code

    def _collected(self, code: int | None) -> int | None:
        if code is not None:
            self._released.set()
            self._owner.join()
        return code
