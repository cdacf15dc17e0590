"""The database: SQLite in WAL mode or PostgreSQL. Transactions, errors, and a backup of SQLite."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from desk.errors import DatabaseRefused, DatabaseUnavailable, SettingsError

Tx: TypeAlias = sa.Connection
"""An open transaction. Only ``desk.store`` runs statements in it."""

_ANSWER_S = 30.0
"""The time without an answer after which a connection to PostgreSQL is closed."""

_BUSY_MS = 15_000

_POOL_WAIT_S = 30.0


class Database:
    """The desk's database. Safe from any thread; close it in the end."""

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
        # Twice the size under load. It is not a setting: PostgreSQL's own limit is far away, and on
        # SQLite one thread writes at a time anyway.
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": _POOL_WAIT_S,
        }
        if self.is_sqlite:
            if parsed.database in {None, "", ":memory:"}:
                raise SettingsError("database.url: sqlite needs a file, sqlite:///PATH")
            # The pool hands a connection to any thread, one at a time.
            options["connect_args"] = {"timeout": _BUSY_MS / 1000, "check_same_thread": False}
        else:
            if not (parsed.username or "user" in parsed.query):
                raise SettingsError("database.url names no user: postgresql://USER@HOST/DB")
            parsed = parsed.set(drivername="postgresql+pg8000")
            # A failover or a proxy may have closed the connection while it was idle.
            options["pool_pre_ping"] = True
            options["connect_args"] = {"timeout": _ANSWER_S}
        # hide_parameters: errors would otherwise quote the values of a statement, which may be
        # messages.
        self.engine = sa.create_engine(parsed, hide_parameters=True, **options)
        # SQLite has one writer at a time. A thread that waits in SQLite polls every 100 ms and may
        # lose each time. A thread that waits here is woken in turn, and holds no connection.
        self._turns = Turns()
        if self.is_sqlite:
            sa.event.listen(self.engine, "do_connect", _keep_private)
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            from desk.store import postgresql

            sa.event.listen(self.engine, "do_connect", postgresql.connect)
            sa.event.listen(self.engine, "handle_error", postgresql.leave_standby)

    @contextmanager
    def write(self, *, patient: bool = False) -> Iterator[Tx]:
        """Open a transaction that writes: committed at the end, rolled back on an error.

        On SQLite there is one at a time (BEGIN IMMEDIATE). ``patient`` sets no limit on the time of
        its statements, for a migration. Raises DatabaseUnavailable, also if all connections are in
        use for ``_POOL_WAIT_S``.
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
        """Open a transaction that reads. Raises DatabaseUnavailable."""
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
            raise DatabaseUnavailable("the database is busy with another transaction")
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
            raise DatabaseUnavailable("all connections to the database are taken") from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _keep_private(_dialect: Any, _record: Any, arguments: Any, _options: Any) -> None:
    """Create the file for its owner alone (0600), and take a file that was copied here from
    others: it holds messages. SQLite gives -wal and -shm the rights of the database."""
    path = str(arguments[0])
    with suppress(OSError):  # SQLite reports what is wrong with the path
        # Only if it is new: closing any descriptor of a file drops this process's locks on it
        # (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for each in (Path(path), Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(OSError):  # not there, or another user's
            if each.stat().st_mode & 0o077:
                each.chmod(0o600)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin transactions by itself, and only before the first write.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a decision that was confirmed is on the disk
        "foreign_keys=ON",
        "secure_delete=ON",  # what was purged is overwritten
        f"busy_timeout={_BUSY_MS}",
        "cache_size=-65536",  # 64 MiB, in KiB if negative
        "temp_store=MEMORY",  # sorting writes no messages to a temporary file
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock now. A transaction that begins by reading cannot write any more
    # once another one has written: SQLite refuses at once, whatever the timeout.
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


class Turns:
    """A lock that goes to the thread that has waited longest.

    With ``threading.Lock`` a thread that writes in a loop would starve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the lock; return whether it came in time. ``release`` it afterwards."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout_s):
            return True
        with self._lock:
            if mine not in self._waiting:
                return True  # it came at that very moment
            self._waiting.remove(mine)
        return False

    def release(self) -> None:
        """Pass the lock to the next thread."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


# PostgreSQL's SQLSTATE classes for connection failures (08), a standby (25006), a deadlock (40),
# too many connections, a full disk (53), shutting down, starting, ending a statement (57).
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY = ("08", "25006", "40", "53", "57")

_REFUSED = {"28P01", "28000", "3D000", "42P01", "42501"}


def sqlstate(error: BaseException | None) -> str:
    """Return the SQLSTATE of an error of pg8000, "" if it has none."""
    if error is not None and error.args and isinstance(error.args[0], dict):
        return str(error.args[0].get("C", ""))
    return ""


def translate(error: DBAPIError) -> Exception:
    """Return DatabaseUnavailable, DatabaseRefused, or the error itself. The driver's words are left
    out, because they may hold values."""
    original = error.orig
    if type(original).__module__ == "sqlite3":
        return _of_sqlite(str(original)) or error
    code = sqlstate(original)
    if code.startswith(_AWAY):
        return DatabaseUnavailable(f"the database cannot do it now (SQLSTATE {code})")
    if code in _REFUSED:
        return DatabaseRefused(
            f"the database refuses (SQLSTATE {code}): look at database.url, and run "
            "`clerk-desk migrate`"
        )
    if error.connection_invalidated or type(original).__name__ == "InterfaceError":
        return DatabaseUnavailable("the database ended the connection")
    return error


def _of_sqlite(words: str) -> Exception | None:
    if "locked" in words or "busy" in words:
        return DatabaseUnavailable("the database is busy with another transaction")
    if words == "database or disk is full":
        return DatabaseUnavailable("the database's disk is full")
    if words.startswith(("no such table", "unable to open", "file is not a database")):
        return DatabaseRefused(f"{words}: has `clerk-desk migrate` been run?")
    return None


def back_up(database: Database, target: Path) -> int:
    """Write a consistent copy of the database to a new file; return its size in bytes.

    The desk may run meanwhile. Deleted content is not copied (``VACUUM INTO``,
    https://www.sqlite.org/lang_vacuum.html). The file appears whole or not at all, readable by its
    owner only. Raises SettingsError, DatabaseRefused.
    """
    if not database.is_sqlite:
        raise SettingsError(
            "database.url is PostgreSQL's: back it up by pg_dump --format=custom (docs/desk.md)"
        )
    if not Path(str(database.engine.url.database)).exists():
        raise DatabaseRefused(f"{database.engine.url.database}: there is no such database")
    if target.exists():
        raise SettingsError(f"{target} exists: name a new file")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        # VACUUM INTO accepts an empty file: so the copy is private before there is anything in it.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        # Not by write(): VACUUM cannot run in a transaction.
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
