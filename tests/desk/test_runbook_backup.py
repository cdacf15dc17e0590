"""The lines about backup and restore in docs/desk.md, run as they are written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from desk.core.items import Queue
from desk.service import reviewing
from desk.store.database import Database
from desk.store.migrate import migrate
from tests.support.desk_databases import KIND
from tests.support.desk_world import DeskWorld
from tests.support.local_postgres import PROGRAMS, LocalPostgres
from worker.contract.taxonomy import Taxonomy

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "desk.md").read_text(encoding="utf-8")


def lines(heading: str) -> list[str]:
    """The commands in the part of the page that begins with these words, in order."""
    part = DOC.split(f"**{heading}**", 1)[1]
    part = re.split(r"\n\*\*|\n## |\n\|", part, maxsplit=1)[0]
    return [line.strip() for line in re.findall(r"^    (.+)$", part, re.MULTILINE)]


def run(line: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a line as a shell does, with ``clerk-desk`` from this checkout."""
    desk = f'clerk-desk() {{ {shlex.quote(sys.executable)} -m desk "$@"; }}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{desk}\n{line}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)


def filled(url: str, taxonomy: Taxonomy) -> None:
    """A desk with two messages, one of which is decided."""
    database = Database(url)
    migrate(database)
    world = DeskWorld(database, taxonomy=taxonomy)
    items = [
        world.add(text, label=taxonomy.names[0], scores={taxonomy.names[0]: 1.0})
        for text in ("decided before", "waits in the backup")
    ]
    ann = world.person("ann")
    world.decide(ann, taxonomy.names[1], items[0].id, request_id="before")
    database.close()


def look(url: str, taxonomy: Taxonomy) -> str:
    """What waits at a desk; its decisions are there."""
    database = Database(url)
    world = DeskWorld(database, taxonomy=taxonomy)
    task = reviewing.next_item(world.desk, world.person("bo"), Queue())
    with database.read() as tx:
        made = tx.exec_driver_sql("SELECT count(*) FROM decisions").scalar_one()
    database.close()
    assert task is not None
    assert made == 1
    return task.text


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy.from_toml(ROOT / "config" / "taxonomy.toml")


def test_the_lines_for_sqlite(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A desk that broke after the backup is whole again, and the broken one is kept."""
    url = f"sqlite:///{tmp_path / 'desk.db'}"
    filled(url, taxonomy)
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "desk.toml"
    config.write_text(
        f'[project]\ntaxonomy = "{ROOT / "config" / "taxonomy.toml"}"\n'
        '[database]\nurl = "sqlite:///desk.db"\n'
    )
    (backup,) = (line for line in lines("Back up") if line.startswith("clerk-desk"))
    restore = [line for line in lines("Restore") if "pg_restore" not in line]
    assert len(restore) == 2
    run(backup, tmp_path, {})
    (tmp_path / "desk.db").write_bytes(b"a disk that failed" * 1000)
    for line in restore:
        run(line, tmp_path, {})
    assert look(url, taxonomy) == "waits in the backup"
    assert (tmp_path / "desk-broken.db").read_bytes().startswith(b"a disk that failed")


def test_the_lines_for_postgresql(tmp_path: Path, taxonomy: Taxonomy) -> None:
    if not PROGRAMS:
        if KIND == "postgresql" or os.environ.get("CI"):
            pytest.fail("PostgreSQL is not here: apt-get install postgresql")
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    (backup,) = (line for line in lines("Back up") if line.startswith("pg_dump"))
    (restore,) = (line for line in lines("Restore") if "pg_restore" in line)
    with LocalPostgres() as server:
        url = server.url(server.create())
        environment = {
            "URL": url,
            "PATH": f"{PROGRAMS[-1]}:{os.environ['PATH']}",
            # Where the programs of the second line find the server.
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "desk",
        }
        filled(url, taxonomy)
        run(backup, tmp_path, environment)
        server.drop(url.rpartition("/")[2])
        run(restore, tmp_path, environment)
        assert look(server.url("desk_restored"), taxonomy) == "waits in the backup"
