"""Restores logging after a test: it is configured once for the whole process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from worker.common.logs import configure_logging


def configure_for_a_test(*given: Any, **named: Any) -> None:
    """``configure_logging`` without cached loggers, which would keep it for later tests."""
    configure_logging(*given, **named)
    structlog.configure(cache_logger_on_first_use=False)


@contextmanager
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for program in ("worker", "desk"):
        logging.getLogger(program).setLevel(logging.NOTSET)
    structlog.reset_defaults()
