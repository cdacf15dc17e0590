"""As for the desk's unit tests: each test has its own database."""

from __future__ import annotations

from tests.unit.desk.conftest import database, new_database, world

__all__ = ["database", "new_database", "world"]
