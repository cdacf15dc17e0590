"""As for the desk's unit tests: a database of its own for each test."""

from __future__ import annotations

from tests.unit.desk.conftest import database, new_database, world

__all__ = ["database", "new_database", "world"]
