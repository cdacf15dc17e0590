"""Migrate the schema, and check its version at the start."""

from __future__ import annotations

import functools
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from desk import __version__
from desk.errors import DatabaseRefused
from desk.store.database import Database

_FOLDER = Path(__file__).parent / "migrations"


def migrate(database: Database) -> str:
    """Migrate the schema to the newest version, if needed, and return it.

    One process at a time: on PostgreSQL by an advisory lock, on SQLite by its own. Raises
    DatabaseUnavailable, DatabaseRefused.
    """
    config = _config()
    with database.write(patient=True) as tx:
        if not database.is_sqlite:
            # Any number that nothing else in the database uses.
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(7305714)")
        _refuse_newer(_version_of(tx))
        config.attributes["connection"] = tx
        command.upgrade(config, "head")
    return newest_version()


# Reading the migrations takes 6 ms, a fifth of opening a desk.
@functools.cache
def newest_version() -> str:
    """Return the version that this code needs."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check_version(database: Database) -> None:
    """Raise DatabaseRefused unless the schema is the one that this code needs."""
    with database.read() as tx:
        found = _version_of(tx)
    if found != newest_version():
        _refuse_newer(found)
        raise DatabaseRefused(
            f"the database's schema is {found or 'empty'} and this version needs "
            f"{newest_version()}: run `clerk-desk migrate`"
        )


def _version_of(tx: Connection) -> str | None:
    return MigrationContext.configure(tx).get_current_revision()


def _refuse_newer(found: str | None) -> None:
    """Raise DatabaseRefused for a schema that this version does not know."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseRefused(
            f"the database's schema is {found} and clerk-desk {__version__} knows those up to "
            f"{newest_version()}: start the newer clerk-desk again, or restore the backup from "
            "before its migration (docs/desk.md, Roll back)"
        )


def _config() -> Config:
    config = Config()
    # Alembic's options go through configparser, where a % begins an interpolation.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
