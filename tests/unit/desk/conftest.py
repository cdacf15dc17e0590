"""A database of its own for each test, and a desk on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from desk.store.database import Database
from tests.support.desk_databases import NewDatabase, databases
from tests.support.desk_world import DeskWorld
from tests.support.logging_state import configure_for_a_test, logging_restored


@pytest.fixture(autouse=True)
def restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore logging: a command configures it for good."""
    monkeypatch.setattr("worker.common.logs.configure_logging", configure_for_a_test)
    with logging_restored():
        yield


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with databases(tmp_path_factory.mktemp("databases")) as new:
        yield new


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[Database]:
    opened = Database(new_database())
    yield opened
    opened.close()


@pytest.fixture
def world(database: Database) -> DeskWorld:
    return DeskWorld(database)
