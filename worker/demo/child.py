"""A child process that does not outlive this one, even when this one is killed with -9."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")


class ChildProcess:
    """A command in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Its output is appended to a log file. Without ``env`` it gets no environment but a UTF-8
    locale: nothing the user has set (a PATH, JVM options) can change how it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log_path: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. Raises OSError when the folder or the log file cannot be used."""
        self._command = list(command)
        self._cwd = cwd
        self._log_path = log_path
        self._env = dict(env) if env is not None else {"LC_ALL": "C.UTF-8"}
        self._released = threading.Event()
        self._started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel sends the death signal when the *thread* that made the child ends, not the
        # process. The caller's thread may be short-lived, so a thread that only waits makes it.
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
                process = subprocess.Popen(  # noqa: S603 - our own command, no shell
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
        """Return None while it runs, then its exit code (minus the signal that ended it)."""
        return self._collected(self._started.result().poll())

    def wait(self, timeout_s: float) -> int:
        """Return its exit code; kill it first when it takes longer than `timeout_s`."""
        try:
            code = self._started.result().wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._collected(code)
        return code

    def stop(self, grace_s: float) -> int:
        """Ask it to end (SIGTERM), kill it after `grace_s`; return its exit code."""
        self._started.result().terminate()
        return self.wait(grace_s)

    def kill(self) -> int:
        """End it at once (SIGKILL) and return its exit code when it is gone."""
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
