"""A database of its own for each test, and a desk on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner

from desk.auth import passwords
from desk.cli.main import app
from desk.store.database import Database
from tests.support.desk_databases import NewDatabase, databases
from tests.support.desk_taxonomy import as_toml
from tests.support.desk_world import Command, DeskWorld
from tests.support.logging_state import configure_for_a_test, logging_restored


@pytest.fixture(autouse=True)
def restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore logging: a command configures it for good."""
    monkeypatch.setattr("worker.common.logs.configure_logging", configure_for_a_test)
    with logging_restored():
        yield


@pytest.fixture(autouse=True, scope="session")
def cheap_hashes() -> Iterator[None]:
    """Hash passwords with the least work: the real one takes 64 MiB and tenths of a second each."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passwords, "_hasher", cheap)
        patched.setattr(passwords, "_NOBODY", cheap.hash("nobody has this password"))
        yield


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with databases(tmp_path_factory.mktemp("databases")) as new:
        yield new


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[Database]:
    opened = Database(new_database())
    yield opened
    opened.close()


@pytest.fixture
def world(database: Database) -> DeskWorld:
    return DeskWorld(database)


@pytest.fixture
def command(world: DeskWorld, tmp_path: Path) -> Command:
    """Runs a command on the world's database; gives what it prints, raises what it raises."""
    taxonomy = tmp_path / "taxonomy.toml"
    taxonomy.write_text(as_toml(world.taxonomy), encoding="utf-8")
    url = world.database.engine.url.render_as_string(hide_password=False)
    settings = ("-s", f"project.taxonomy={taxonomy}", "-s", f"database.url={url}")

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, *settings, "-s", "review.double_share=0"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run
