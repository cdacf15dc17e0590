"""Restores logging after a test: it is configured once for the whole process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


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
