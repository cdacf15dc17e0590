"""Commands that run in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.support.logging_state import logging_restored
from worker.logs import configure_logging


@pytest.fixture(autouse=True)
def restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process as it was found: a command sets logging up for good, and loggers that were
    used once would keep it."""

    def configure(*given: Any) -> None:
        configure_logging(*given)
        structlog.configure(cache_logger_on_first_use=False)

    monkeypatch.setattr("worker.cli.load.configure_logging", configure)
    with logging_restored():
        yield
