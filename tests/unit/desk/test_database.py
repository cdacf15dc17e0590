"""The database: servers that reset, refuse or are full; the lock on writing; backups."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from desk.errors import DatabaseRefused, DatabaseUnavailable, SettingsError
from desk.service import upkeep
from desk.store.database import Database, Turns, back_up
from tests.support.desk_world import DeskWorld

NO_TLS = b"N"
READY = b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I"
"""AuthenticationOk, ReadyForQuery: "Message Formats" in PostgreSQL's documentation."""


PASSWORD_WANTED = b"R" + struct.pack("!ii", 8, 3)
SCRAM_WANTED = b"R" + struct.pack("!ii", 23, 10) + b"SCRAM-SHA-256\0\0"


def refusal(code: str) -> bytes:
    """ErrorResponse with this SQLSTATE, ReadyForQuery."""
    fields = b"SERROR\0VERROR\0C" + code.encode() + b"\0Mno\0\0"
    return b"E" + struct.pack("!i", len(fields) + 4) + fields + b"Z" + struct.pack("!i", 5) + b"I"


@contextmanager
def answering(answers: Sequence[bytes]) -> Iterator[str]:
    """The URL of a server that sends these answers, reads a message, and resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            for answer in answers:
                connection.recv(4096)
                connection.sendall(answer)
            connection.recv(4096)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"postgresql://desk@127.0.0.1:{server.getsockname()[1]}/desk"
        thread.join(10)


def ask(url: str) -> None:
    """Begin and end a transaction."""
    database = Database(url)
    try:
        with database.read():
            pass
    finally:
        database.close()


@pytest.mark.parametrize(
    "answers", [(), (NO_TLS,), (NO_TLS, READY)], ids=["at first", "connecting", "asking"]
)
def test_a_server_that_resets_the_connection_is_away(
    answers: Sequence[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """The caller tries again. The socket's own error would end a request with 500."""
    with answering(answers) as url, pytest.raises(DatabaseUnavailable):
        ask(url)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("answers", "error", "code"),
    [
        # The server's statement_timeout; a standby, until the address leads to the new primary.
        ((READY, refusal("57014")), DatabaseUnavailable, "57014"),
        ((READY, refusal("25006")), DatabaseUnavailable, "25006"),
        # pg_hba.conf does not admit this user; the server wants a password, and the URL has none.
        ((refusal("28000"),), DatabaseRefused, "28000"),
        ((PASSWORD_WANTED,), DatabaseRefused, "28P01"),
        ((SCRAM_WANTED,), DatabaseRefused, "28P01"),
    ],
)
def test_a_refusal_says_whether_trying_again_helps(
    answers: Sequence[bytes], error: type[Exception], code: str
) -> None:
    with answering((NO_TLS, *answers)) as url, pytest.raises(error, match=code):
        ask(url)


def test_a_url_without_a_user_is_a_wrong_setting() -> None:
    """PostgreSQL's own programs would use the name of the system user."""
    with pytest.raises(SettingsError, match=r"database\.url names no user"):
        Database("postgresql://127.0.0.1/desk")


def test_no_free_connection_is_no_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a database hangs, all connections wait for it. Later callers are to try again."""
    monkeypatch.setattr("desk.store.database._POOL_WAIT_S", 0.1)
    database = Database(f"sqlite:///{tmp_path / 'desk.db'}", pool_size=1)
    with database.read(), database.read(), pytest.raises(DatabaseUnavailable), database.read():
        pass
    database.close()


def test_who_waits_to_write_takes_no_connection_from_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer at a time, and pages are read meanwhile."""
    monkeypatch.setattr("desk.store.database._POOL_WAIT_S", 0.5)
    database = Database(f"sqlite:///{tmp_path / 'desk.db'}", pool_size=1)
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE written (n INTEGER)")
    begun = threading.Barrier(5)

    def write(n: int) -> None:
        begun.wait(10)
        with database.write() as tx:
            tx.exec_driver_sql("INSERT INTO written VALUES (?)", (n,))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    with database.write():
        for each in writers:
            each.start()
        begun.wait(10)
        time.sleep(0.2)
        with database.read() as tx:
            assert tx.exec_driver_sql("SELECT count(*) FROM written").scalar_one() == 0
    for each in writers:
        each.join(30)
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM written").scalar_one() == 4
    database.close()


def test_a_full_disk_is_no_error_of_ours(tmp_path: Path) -> None:
    """Nothing is half done, and work resumes when there is space."""
    database = Database(f"sqlite:///{tmp_path / 'desk.db'}")
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE much (text TEXT)")
        tx.exec_driver_sql("PRAGMA max_page_count = 10")
    with pytest.raises(DatabaseUnavailable, match="full"), database.write() as tx:
        tx.exec_driver_sql("INSERT INTO much VALUES (hex(zeroblob(100000)))")
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM much").scalar_one() == 0
    database.close()


def test_whoever_waited_longest_is_next() -> None:
    """Also before the thread that has just had the lock and wants it again."""
    turns, order = Turns(), list[str]()
    assert turns.acquire(1)

    def wait(name: str) -> None:
        assert turns.acquire(30)
        order.append(name)
        turns.release()

    threads = []
    for name in ("first", "second", "third"):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
    turns.release()
    wait("again")
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second", "third", "again"]


def test_a_copy_is_made_under_a_writer_and_opens_as_a_desk(
    world: DeskWorld, tmp_path: Path
) -> None:
    """It has what was committed and nothing else. Only its owner can read it."""
    if not world.database.is_sqlite:
        with pytest.raises(SettingsError, match="pg_dump"):
            back_up(world.database, tmp_path / "copy.db")
        return
    world.add("give me my money back")
    ann = world.person("ann")
    copy = tmp_path / "copy.db"
    with world.database.write() as tx:  # somebody who writes, and has not finished
        tx.exec_driver_sql("UPDATE people SET name = 'unfinished'")
        size = back_up(world.database, copy)
    assert size == copy.stat().st_size
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    restored = DeskWorld(Database(f"sqlite:///{copy}"))
    assert restored.person("ann").name == "Ann"
    task = restored.next(ann)
    assert task.text == "give me my money back"
    restored.database.close()


def test_what_was_purged_is_in_no_later_backup(world: DeskWorld, tmp_path: Path) -> None:
    if not world.database.is_sqlite:
        pytest.skip("pg_dump writes rows, not pages")
    world.add("zwetschgenknoedel " * 50, message_id="T-1")
    before, after = tmp_path / "before.db", tmp_path / "after.db"
    back_up(world.database, before)
    assert upkeep.purge_person(world.desk, message_ids=["T-1"]) == 1
    back_up(world.database, after)
    assert b"zwetschgenknoedel" in before.read_bytes()
    assert b"zwetschgenknoedel" not in after.read_bytes()


def test_nothing_is_written_over(world: DeskWorld, tmp_path: Path) -> None:
    """An existing file, a missing folder, and a missing database are errors."""
    if not world.database.is_sqlite:
        pytest.skip("as PostgreSQL's tools have it")
    there = tmp_path / "there.db"
    there.write_text("last night's")
    with pytest.raises(SettingsError, match="exists: name a new file"):
        back_up(world.database, there)
    assert there.read_text() == "last night's"
    with pytest.raises(SettingsError, match="No such file"):
        back_up(world.database, tmp_path / "nowhere" / "copy.db")
    missing = Database(f"sqlite:///{tmp_path}/missing.db")
    with pytest.raises(DatabaseRefused, match="no such database"):
        back_up(missing, tmp_path / "copy.db")
    assert not (tmp_path / "missing.db").exists()


def test_the_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Messages are in it, and in the files next to it. Also after it was restored by cp."""
    path = tmp_path / "desk.db"

    def rights() -> set[tuple[str, int]]:
        return {(each.name, each.stat().st_mode & 0o777) for each in tmp_path.iterdir()}

    before = os.umask(0)
    try:
        for _ in range(2):
            database = Database(f"sqlite:///{path}")
            with database.write() as tx:
                tx.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (x)")
                tx.exec_driver_sql("INSERT INTO t VALUES (1)")
                assert rights() == {(f"desk.db{end}", 0o600) for end in ("", "-shm", "-wal")}
            database.close()
            path.chmod(0o644)
    finally:
        os.umask(before)
