"""Logging: dotted events with fields; a console on a terminal, JSON lines elsewhere.

Message text is never a field, and exceptions are shown without values (``worker.common.errors``).
Everything goes to standard error; standard output is for results. JSON lines are written by a
thread of their own: a reader of the pipe that stalls must not stop the program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

from worker.common.errors import format_private


def configure_logging(
    form: Literal["auto", "console", "json"] = "auto",
    level: Literal["debug", "info", "warning", "error"] = "info",
    program: str = "worker",
) -> None:
    """Configure logging for this process.

    ``level`` applies to the program's own loggers; third-party loggers show warnings.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(lambda exc_info: format_private(exc_info[1])),
    ]
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # plain_traceback prints our own string; the default would print local variables.
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if console else _JsonHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # third-party libraries: asking for debug means our own loggers
    logging.getLogger(program).setLevel(level.upper())


def log_if_json(event: str, **fields: object) -> bool:
    """Log an error event (``PROGRAM.WHAT``) and return True, unless logs are for a console."""
    if not any(isinstance(handler, _JsonHandler) for handler in logging.getLogger().handlers):
        return False
    structlog.get_logger(event.partition(".")[0]).error(event, **fields)
    return True


LINES = 10_000
"""Lines that wait for a reader that stalls, a few megabytes; later ones are dropped and counted."""

FLUSH_S = 2.0
"""How long the end of the program waits for the last lines to be read."""

_dropped = 0


def dropped_lines() -> int:
    """Return how many log lines were dropped since the start. Safe from any thread."""
    return _dropped


class _JsonHandler(logging.StreamHandler[TextIO]):
    """A log that programs read. Writes in the background, if to standard error itself."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: queue.Queue[str] | None = None
        if stream is sys.__stderr__:
            self._start()
            # Threads end in a fork, and the lines that wait are the parent's.
            os.register_at_fork(after_in_child=self._start)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or leave it to the thread."""
        global _dropped  # noqa: PLW0603 - one log for each process
        if self._lines is None:
            super().emit(record)
            return
        try:
            self._lines.put_nowait(self.format(record) + self.terminator)
        except queue.Full:
            _dropped += 1
        except Exception:  # noqa: BLE001 - as in the base class: a log must not stop the program
            self.handleError(record)

    def flush(self) -> None:
        """Wait for the lines so far to be written, for ``FLUSH_S`` at most."""
        until = time.monotonic() + FLUSH_S
        while self._lines and self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _start(self) -> None:
        self._lines = queue.Queue(LINES)
        threading.Thread(target=self._write, args=[self._lines], name="log", daemon=True).start()

    def _write(self, lines: queue.Queue[str]) -> None:
        # Not through ``sys.stderr``: while this thread holds its lock, the interpreter cannot end.
        output = self.stream.fileno()
        while True:
            line = lines.get().encode("utf-8", "backslashreplace")
            with contextlib.suppress(OSError):  # nobody reads any more
                while line:
                    line = line[os.write(output, line) :]
            lines.task_done()
