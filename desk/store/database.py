"""Opening the database, and transactions on it: SQLite in WAL mode, or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from desk.errors import DatabaseAway, DatabaseRefused, SettingsError

Tx: TypeAlias = sa.Connection
"""A transaction that is open. Only functions of ``desk.store`` look into it."""

_BUSY_MS = 15_000

# What PostgreSQL calls: connection failures (08), being shut down or starting (57P), a deadlock,
# too many connections. https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY = ("08", "57P", "40", "53")


class Database:
    """Where items and decisions are. Safe from any thread; close it in the end."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        """Describe the database; nothing is connected yet. Raises SettingsError for a URL that is
        neither SQLite's nor PostgreSQL's."""
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise SettingsError(
                "database.url is no URL: write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DB"
            ) from None
        kind = parsed.get_backend_name()
        if kind not in {"sqlite", "postgresql"}:
            raise SettingsError(f"database.url: {kind} is not supported: use sqlite or postgresql")
        self.is_sqlite = kind == "sqlite"
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size}
        if self.is_sqlite:
            if parsed.database in {None, "", ":memory:"}:
                raise SettingsError("database.url: sqlite needs a file, sqlite:///PATH")
            options["connect_args"] = {"timeout": _BUSY_MS / 1000, "check_same_thread": False}
        else:
            parsed = parsed.set(drivername="postgresql+pg8000")
            options["pool_pre_ping"] = True
            options["connect_args"] = {"timeout": 30}
        self.engine = sa.create_engine(parsed, hide_parameters=True, **options)
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            from desk.store import postgresql

            sa.event.listen(self.engine, "do_connect", postgresql.connect)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that may change something; committed in the end, rolled back on an error.

        On SQLite there is one at a time (BEGIN IMMEDIATE). Raises DatabaseAway.
        """
        with self._transaction(write=True) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that only reads. Raises DatabaseAway."""
        with self._transaction(write=False) as tx:
            yield tx

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Tx]:
        try:
            with self.engine.connect() as connection:
                if self.is_sqlite:
                    connection.execution_options(immediate=write)
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            raise _translate(error) from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver begins transactions by itself, and not when it should.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a decision that was confirmed is on the disk
        "foreign_keys=ON",
        "secure_delete=ON",  # what was purged is overwritten
        f"busy_timeout={_BUSY_MS}",
        "cache_size=-65536",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _translate(error: DBAPIError) -> Exception:
    """Return what the caller is told. The driver's words may hold values, so they are left out,
    but for those that cannot."""
    original = error.orig
    if error.connection_invalidated or type(original).__name__ == "InterfaceError":
        return DatabaseAway("the database ended the connection")
    code = ""
    if original is not None and original.args and isinstance(original.args[0], dict):
        code = str(original.args[0].get("C", ""))
    if code.startswith(_AWAY):
        return DatabaseAway(f"the database cannot do it now (SQLSTATE {code})")
    if type(original).__module__ == "sqlite3":
        words = str(original)
        if "locked" in words or "busy" in words:
            return DatabaseAway("the database is busy with another transaction")
        if words.startswith(("no such table", "unable to open", "file is not a database")):
            return DatabaseRefused(f"{words}: has `clerk-desk migrate` been run?")
    if code in {"28P01", "28000", "3D000", "42P01", "42501"}:
        return DatabaseRefused(
            f"the database refuses (SQLSTATE {code}): look at database.url, and run "
            "`clerk-desk migrate`"
        )
    return error
