"""Opening the database, and transactions on it: SQLite in WAL mode, or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from desk.errors import DatabaseAway, SettingsError
from desk.store.failures import translate
from desk.store.turns import Turns

Tx: TypeAlias = sa.Connection
"""A transaction that is open. Only functions of ``desk.store`` look into it."""

_ANSWER_S = 30.0
"""For how long PostgreSQL may be silent before a connection is given up."""

_BUSY_MS = 15_000
_POOL_WAIT_S = 30.0


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
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": _POOL_WAIT_S,
        }
        if self.is_sqlite:
            if parsed.database in {None, "", ":memory:"}:
                raise SettingsError("database.url: sqlite needs a file, sqlite:///PATH")
            options["connect_args"] = {"timeout": _BUSY_MS / 1000, "check_same_thread": False}
        else:
            if not (parsed.username or "user" in parsed.query):
                raise SettingsError("database.url names no user: postgresql://USER@HOST/DB")
            parsed = parsed.set(drivername="postgresql+pg8000")
            options["pool_pre_ping"] = True
            options["connect_args"] = {"timeout": _ANSWER_S}
        self.engine = sa.create_engine(parsed, hide_parameters=True, **options)
        # SQLite lets one write at a time. Who waits for it there asks again after up to 100 ms, and
        # may come last each time; who waits here is woken, and takes no connection meanwhile.
        self._turns = Turns()
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            from desk.store import postgresql

            sa.event.listen(self.engine, "do_connect", postgresql.connect)
            sa.event.listen(self.engine, "handle_error", postgresql.leave_standby)

    @contextmanager
    def write(self, *, patient: bool = False) -> Iterator[Tx]:
        """A transaction that may change something; committed in the end, rolled back on an error.

        On SQLite there is one at a time (BEGIN IMMEDIATE). ``patient``: its statements may take as
        long as they like, for a migration. Raises DatabaseAway, also where all connections are
        taken for ``_POOL_WAIT_S``.
        """
        with self._transaction(write=True) as tx:
            if not patient or self.is_sqlite:
                yield tx
                return
            connection: Any = tx.connection.driver_connection
            connection.wait_for_answers(None)
            try:
                yield tx
            finally:
                connection.wait_for_answers(_ANSWER_S)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that only reads. Raises DatabaseAway."""
        with self._transaction(write=False) as tx:
            yield tx

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Tx]:
        turn = self._turn() if self.is_sqlite and write else nullcontext()
        with turn, self._connected(write=write) as tx:
            yield tx

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(_BUSY_MS / 1000):
            raise DatabaseAway("the database is busy with another transaction")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _connected(self, *, write: bool) -> Iterator[Tx]:
        try:
            with self.engine.connect() as connection:
                if self.is_sqlite:
                    connection.execution_options(immediate=write)
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            raise translate(error) from None
        except NoFreeConnection:
            raise DatabaseAway("all connections to the database are taken") from None

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
