"""A backup is a whole desk of one moment, without what was deleted, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from desk.core.queue import Queue
from desk.errors import DatabaseRefused, SettingsError
from desk.service import reviewing, upkeep
from desk.store.backup import back_up
from desk.store.database import Database
from tests.support.desk_world import DeskWorld


def test_a_copy_is_made_under_a_writer_and_opens_as_a_desk(
    world: DeskWorld, tmp_path: Path
) -> None:
    """What was committed is in it and what was not is not; only its owner can read it."""
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
    task = reviewing.next_item(restored.desk, ann, Queue())
    assert task is not None
    assert task.text == "give me my money back"
    restored.database.close()


def test_what_was_purged_is_in_no_later_backup(world: DeskWorld, tmp_path: Path) -> None:
    """Not among its free pages either."""
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
    """A file that is there, a folder that is not, and a database that is not are told."""
    if not world.database.is_sqlite:
        pytest.skip("as PostgreSQL's tools have it")
    there = tmp_path / "there.db"
    there.write_text("last night's")
    with pytest.raises(SettingsError, match="is there already"):
        back_up(world.database, there)
    assert there.read_text() == "last night's"
    with pytest.raises(SettingsError, match="No such file"):
        back_up(world.database, tmp_path / "nowhere" / "copy.db")
    missing = Database(f"sqlite:///{tmp_path}/missing.db")
    with pytest.raises(DatabaseRefused, match="no such database"):
        back_up(missing, tmp_path / "copy.db")
    assert not (tmp_path / "missing.db").exists()
