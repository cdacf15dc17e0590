"""The worker as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.demo.child import ChildProcess
from worker.demo.program import Program, start_program

_READY_S = 600.0
_STOP_S = 60.0


class WorkerProcess:
    """A running ``clerk-worker run``; its log is a file of JSON lines."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @property
    def child(self) -> ChildProcess:
        """The process."""
        return self._program.child

    @property
    def log_path(self) -> Path:
        """The file that holds what it has logged."""
        return self._program.log_path

    @property
    def url(self) -> str | None:
        """Where it answers probes and shows its metrics; None before it does."""
        return self._program.logged("http.listening", "url")

    def wait_until_ready(self, event: str = "worker.ready") -> None:
        """Return when the worker's model is warm and it joins its group. Raises ProgramFailed.

        With ``event="partitions.assigned"`` it has joined and reads.
        """
        self._program.wait_for(event, _READY_S)

    def events(self) -> list[str]:
        """The names of what it has logged so far."""
        return self._program.events()

    def check(self) -> None:
        """Raise ProgramFailed when it has ended."""
        self._program.check()

    def stop(self) -> int:
        """Let it drain (SIGTERM) and return its exit code."""
        return self.child.stop(_STOP_S)


@contextmanager
def start_worker(
    settings: Mapping[str, str],
    log_path: Path,
    command: tuple[str, ...] = ("-m", "worker", "run"),
) -> Iterator[WorkerProcess]:
    """Start the worker with settings as flags (values as TOML has them); stop it at the end."""
    with start_program("the worker", command, settings, log_path, grace_s=_STOP_S) as program:
        yield WorkerProcess(program)
