"""Databases of the version before sessions."""

from __future__ import annotations

from pathlib import Path

from alembic import command

from desk.store import migrate as schema
from desk.store.database import Database
from desk.store.people import find


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """With everybody in it; they sign in as before."""
    database = Database(f"sqlite:///{tmp_path / 'desk.db'}")
    config = schema._config()
    with database.write() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0001")
        tx.exec_driver_sql(
            "INSERT INTO people (subject, name, pseudonym, role, active, created_ms) "
            "VALUES ('ada', 'Ada', 'annotator-1', 'owner', 1, 0)"
        )
    assert schema.migrate(database) == schema.newest_version()
    schema.check_version(database)
    with database.read() as tx:
        found = find(tx, "ada")
        assert found is not None
        assert found.role == "owner"
        assert list(tx.exec_driver_sql("SELECT * FROM sessions")) == []
    with database.write() as tx:
        config.attributes["connection"] = tx
        command.downgrade(config, "0001")
    database.close()
