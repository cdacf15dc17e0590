"""Databases for the desk's tests: SQLite, or PostgreSQL where CLERK_TEST_DESK_DATABASE says so.

``make test-desk`` runs the same tests on PostgreSQL. Each test has its own database.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from desk.store.database import Database
from desk.store.migrate import migrate

KIND = os.environ.get("CLERK_TEST_DESK_DATABASE", "sqlite")

NewDatabase = Callable[[], str]
"""Creates a database with the schema, and returns its URL."""


@contextmanager
def databases(folder: Path) -> Iterator[NewDatabase]:
    """Make databases until the end; PostgreSQL is skipped where it is missing, but not in CI."""
    with ExitStack() as stack:
        if KIND == "postgresql":
            yield _on_postgres(stack)
        else:
            yield _on_sqlite(folder)


def _on_sqlite(folder: Path) -> NewDatabase:
    template = folder / "template.db"
    _migrate(f"sqlite:///{template}")
    numbers = iter(range(1_000_000))

    def new() -> str:
        path = folder / f"desk{next(numbers)}.db"
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"

    return new


def _on_postgres(stack: ExitStack) -> NewDatabase:
    from tests.support.local_postgres import PROGRAMS, LocalPostgres

    if not PROGRAMS:
        message = "PostgreSQL is not here: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    server = stack.enter_context(LocalPostgres())
    template = server.create()
    _migrate(server.url(template))
    return lambda: server.url(server.create(template))


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()
