"""The database: its schema, transactions, and what it refuses."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from desk.errors import DatabaseRefused, SettingsError
from desk.store import migrate as schema
from desk.store import offsets, people
from desk.store.database import Database
from desk.store.migrate import check_version, migrate, newest_version
from desk.store.tables import metadata
from tests.support.desk_databases import NewDatabase

_FIRST_SCHEMA = "5ca32a0a129d4cc0b7db216f0d3b3d16932f2d77aab3f66757cae7cc49d481d9"

_LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"

def upgrade():
    op.add_column("people", sa.Column("shift", sa.Text))
    {then}
"""


def test_the_migrations_make_the_tables(database: Database) -> None:
    """From an empty database to the tables that the code uses. Running them again does nothing."""
    assert migrate(database) == newest_version()
    with database.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        found = compare_metadata(context, metadata)
    # The index of texts is the database's own.
    differences = [each for each in found if "search" not in str(each)]
    assert differences == []


def test_the_first_migration_makes_the_same_tables_for_everybody() -> None:
    """A database that was made by it is not changed by it again, so after a release a change of the
    tables needs a migration."""
    made = hashlib.sha256()
    for dialect in (sqlite.dialect(), postgresql.dialect()):  # type: ignore[no-untyped-call]
        for table in metadata.sorted_tables:
            made.update(str(CreateTable(table).compile(dialect=dialect)).encode())
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                made.update(str(CreateIndex(index).compile(dialect=dialect)).encode())
    assert made.hexdigest() == _FIRST_SCHEMA, (
        "desk.store.tables has changed. Before the first release: set _FIRST_SCHEMA to this "
        "digest. After it: copy the released tables into m0001_initial.py, and add a migration."
    )


def test_a_database_of_the_version_before_is_upgraded(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused until `clerk-desk migrate` has run, and keeps its content. A migration that
    fails leaves version and tables as they were."""
    database = Database(new_database())
    with database.write() as tx:
        people.add(tx, "ada", "Ada", "owner", 0)
    later = shutil.copytree(schema._FOLDER, tmp_path / "migrations")
    step = later / "versions" / "m9999_later.py"
    monkeypatch.setattr(schema, "_FOLDER", later)
    head = newest_version()
    newest_version.cache_clear()
    try:
        step.write_text(_LATER.format(head=head, then="raise RuntimeError"))
        with pytest.raises(DatabaseRefused, match="clerk-desk migrate"):
            check_version(database)
        with pytest.raises(RuntimeError):
            migrate(database)
        with database.read() as tx:
            assert "shift" not in {each["name"] for each in sa.inspect(tx).get_columns("people")}
        step.write_text(_LATER.format(head=head, then="pass"))
        assert migrate(database) == "9999"
        check_version(database)
        with database.read() as tx:
            rows = tx.exec_driver_sql("SELECT subject, role, shift FROM people").all()
    finally:
        newest_version.cache_clear()
        database.close()
    assert [tuple(row) for row in rows] == [("ada", "owner", None)]


def test_a_migration_takes_the_time_it_takes(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index over a million items, or waiting for another migration, may take longer than a page
    may wait for an answer."""
    monkeypatch.setattr("desk.store.database._ANSWER_S", 0.2)
    database, begun = Database(new_database()), threading.Event()

    def migrate_slowly() -> None:
        with database.write() as tx:
            if not database.is_sqlite:
                tx.exec_driver_sql("SELECT pg_advisory_xact_lock(7305714)")
            begun.set()
            time.sleep(0.6)

    other = threading.Thread(target=migrate_slowly)
    other.start()
    assert begun.wait(30)
    assert migrate(database) == newest_version()
    other.join(30)
    database.close()


def test_a_database_of_a_newer_desk_is_refused_with_the_way_back(tmp_path: Path) -> None:
    """After a roll-back of the image. `migrate`, which its first container runs, cannot go back."""
    database = Database(f"sqlite:///{tmp_path / 'newer.db'}")
    migrate(database)
    with database.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for use in (check_version, migrate):
        with pytest.raises(DatabaseRefused) as caught:
            use(database)
        assert "start the newer clerk-desk again, or restore the backup" in str(caught.value)
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999"
    database.close()


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite:///:memory:", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    """So is an invalid URL, without repeating its password."""
    with pytest.raises(SettingsError, match=r"database\.url"):
        Database(url)


def test_a_lease_is_one_holders_until_it_ends(database: Database) -> None:
    """Another holder gets it when it expires, or at once when it is released."""
    with database.write() as tx:
        assert offsets.hold_lease(tx, "work", "a", 1_000, 500)
        assert not offsets.hold_lease(tx, "work", "b", 1_400, 500)
        assert offsets.hold_lease(tx, "work", "a", 1_400, 500)
        assert not offsets.hold_lease(tx, "work", "b", 1_800, 500)
        assert offsets.hold_lease(tx, "work", "b", 1_901, 500)
        offsets.give_up_lease(tx, "work", "a")  # not theirs
        assert not offsets.hold_lease(tx, "work", "a", 1_902, 500)
        offsets.give_up_lease(tx, "work", "b")
        assert offsets.hold_lease(tx, "work", "a", 1_903, 500)
