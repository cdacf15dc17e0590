"""Logging: dotted events with fields; a console on a terminal, JSON lines elsewhere.

Message text is never a field, and exceptions are shown without values (``worker.common.errors``).
Everything goes to standard error; standard output is for results.
"""

from __future__ import annotations

import logging
import sys
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


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Marks a log that programs read."""
