"""A copy of SQLite's database while the desk runs. PostgreSQL has tools of its own."""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path

from desk.errors import DatabaseRefused, SettingsError
from desk.store.database import Database


def back_up(database: Database, target: Path) -> int:
    """Write the database as it is at one moment to a new file; return its size in bytes.

    The desk may run meanwhile. Pages of what was deleted are not copied (``VACUUM INTO``,
    https://www.sqlite.org/lang_vacuum.html). The file is there whole or not at all, for its owner
    alone. Raises SettingsError, DatabaseRefused.
    """
    if not database.is_sqlite:
        raise SettingsError(
            "database.url is PostgreSQL's: back it up by pg_dump --format=custom (docs/desk.md)"
        )
    if not Path(str(database.engine.url.database)).exists():
        raise DatabaseRefused(f"{database.engine.url.database}: there is no such database")
    if target.exists():
        raise SettingsError(f"{target} is there already: name a new file")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = database.engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM INTO ?", (str(part),))
        finally:
            connection.close()
        with part.open("rb") as file:
            os.fsync(file.fileno())
        size = part.stat().st_size
        os.link(part, target)  # unlike a rename it replaces nothing
    except OSError as error:
        raise SettingsError(f"{target}: cannot be written: {error.strerror}") from error
    except sqlite3.Error as error:
        raise DatabaseRefused(f"the database cannot be copied to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return size
