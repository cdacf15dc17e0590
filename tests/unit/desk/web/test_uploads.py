"""Large uploads are loaded in the background, whole, whatever stops the desk in between."""

from __future__ import annotations

from typing import Any

import pytest

from desk.service import circle, loading
from desk.service.loading import UploadLoader
from desk.store import batches
from tests.support.desk_browser import NewBrowser, send
from tests.support.desk_files import make_task, task_file
from tests.support.desk_world import DeskWorld

ROWS = 450


def table(rows: int = ROWS) -> str:
    return "text,label\n" + "".join(f"Message {n},delivery\n" for n in range(rows))


def load_all(world: DeskWorld) -> None:
    loader = UploadLoader(world.desk)
    while loader.run_once():
        pass


def test_a_large_file_is_loaded_in_the_background(world: DeskWorld, browser: NewBrowser) -> None:
    ada = browser("ada", "owner")
    assert send(ada, table(), "march.csv").headers["location"] == "/load"
    assert circle.all_progress(world.desk) == []
    assert "0 of 450 loaded" in ada.open("/load").text
    loader = UploadLoader(world.desk)
    assert loader.run_once() == 100
    page = ada.open("/load").text
    assert "100 of 450 loaded" in page
    assert "data-again" in page
    assert "not complete" in ada.open("/").text
    load_all(world)
    page = ada.open("/load").text
    assert "all 450 loaded" in page
    assert "data-again" not in page
    (batch,) = circle.all_progress(world.desk)
    assert (batch.name, batch.progress.tasks, batch.loaded_ms is None) == ("march", ROWS, False)
    with world.database.read() as tx:
        left = tx.exec_driver_sql("SELECT count(*) FROM uploads WHERE content IS NOT NULL")
        assert left.scalar_one() == 0


def test_a_desk_that_is_killed_goes_on_where_it_was(
    world: DeskWorld, browser: NewBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a transaction; of two batches in one file too."""
    tasks = [make_task(f"Message {n}", "check" if n % 2 else "learn") for n in range(ROWS)]
    send(browser("ada", "owner"), task_file(tasks), "tasks.jsonl")
    add, calls = batches.add, [0]

    def ending(*given: Any) -> Any:
        done = add(*given)
        calls[0] += 1
        if calls[0] % 2:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(batches, "add", ending)
    while True:
        try:
            load_all(world)
        except KeyboardInterrupt:
            continue
        break
    found = circle.all_progress(world.desk)
    assert sorted(each.progress.tasks for each in found) == [225, 225]
    assert all(each.loaded_ms for each in found)
    assert loading.newest(world.desk)[0].loaded == ROWS


def test_a_large_file_with_a_wrong_row_is_refused_at_once(
    world: DeskWorld, browser: NewBrowser
) -> None:
    sent = send(browser("ada", "owner"), table() + "Hello,refunds\n", "march.csv")
    assert (sent.status_code, "line 452: the label is not in" in sent.text) == (409, True)
    assert loading.newest(world.desk) == []


def test_a_file_that_no_longer_fits_is_refused_in_words(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """The taxonomy was changed between the check and the load; the next file is loaded."""
    ada = browser("ada", "owner")
    loading.load_later(
        world.desk, b"text,label\nHello,gone\n", "old\x00.csv", 1, world.person("ada")
    )
    send(ada, table(), "march.csv")
    load_all(world)
    page = ada.open("/load").text
    assert "line 2: the label is not in this desk" in page
    assert "all 450 loaded" in page
    assert "old.csv" in page, "PostgreSQL stores no NUL"
    assert "Hello" not in page
