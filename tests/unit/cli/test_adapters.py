"""``clerk-worker adapters``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import AdapterStore, Follower
from tests.support.toy_adapter import ENCODERS, ONE, THREE, TWO
from worker.cli.adapters import show_adapters
from worker.engine.open import OpenedEngine
from worker.observe.observer import describe_worker
from worker.observe.server import HttpServer, Page
from worker.settings import Settings


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[], tuple[Follower, str]]]:
    servers = []

    def start() -> tuple[Follower, str]:
        follower = Follower(AdapterStore(tmp_path), ONE)
        opened = OpenedEngine(follower.main.engine, ONE, ENCODERS, "merged")

        def info() -> Page:
            serving = (follower.router, follower.events)
            found = describe_worker(Settings(), datetime.now(UTC), opened, serving)
            return Page(json.dumps(found).encode(), "application/json")

        servers.append(HttpServer("127.0.0.1", 0, {"/info": info}))
        return follower, servers[-1].url

    yield start
    for server in servers:
        server.close()


def asked(capsys: pytest.CaptureFixture[str], *given: Any) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = show_adapters(*given, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def test_a_worker_that_follows_and_one_that_refused(
    worker: Callable[[], tuple[Follower, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    follower, url = worker()
    store = follower.store.folder
    follower.store.publish(TWO)
    follower.follow()
    follower.store.canary(THREE, 0.25)
    follower.follow()
    code, found = asked(capsys, store, [url])
    assert code == 0
    assert found["store"]["current"]["digest"] == TWO.digest
    assert found["store"]["canary"]["share"] == 0.25
    assert {adapter["name"] for adapter in found["store"]["adapters"]} == {"one", "two", "three"}
    [shown] = found["workers"]
    assert shown["follows"] is True
    assert [
        (adapter["role"], adapter["name"], adapter["share"]) for adapter in shown["adapters"]
    ] == [
        ("main", "two", 0.75),
        ("canary", "three", 0.25),
    ]
    assert shown["adapters"][0]["since"] == "2024-05-06T07:08:09.123Z"

    (store / ONE.digest / "manifest.json").write_text("{}")
    follower.store.publish(ONE)
    follower.follow()
    code, found = asked(capsys, store, [url])
    assert code == 1
    assert found["workers"][0]["follows"] is False
    assert found["workers"][0]["last_refusal"]["reason"] == "files"
    assert show_adapters(store, [url], as_json=False) == 1
    lines = capsys.readouterr().out
    assert "NOT the store's current adapter" in lines
    assert "refused" in lines


def test_a_worker_that_does_not_answer_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = asked(capsys, None, ["http://127.0.0.1:1", "ftp://x"])
    assert code == 1
    assert "no answer" in found["workers"][0]["error"]
    assert found["workers"][1]["error"] == "not http://HOST:PORT"
    assert show_adapters(None, ["127.0.0.1:1"], as_json=False) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
