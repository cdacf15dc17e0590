"""``clerk-worker replay`` and ``verify``: what cannot be asked is told, before Kafka is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from tests.support.kafka_world import KafkaWorld
from worker.cli.main import app
from worker.errors import EXIT_SETTINGS, SettingsError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("replay", "choose what is labelled again"),
        ("replay --since 2026-03-02", "needs an end"),
        ("replay --offsets 0:5-", "needs an end"),
        ("replay --until 2026-03-02 --review", "--until needs --since"),
        ("replay --since 2026-03-02 --offsets 0:1-2", "choose one"),
        ("replay --reason bad_luck", "it is one of tombstone"),
        ("replay --made-by xyz", "hexadecimal"),
        ("replay --dead-letters --execute", "--id NAME"),
        ("replay --dead-letters --execute --id x", "--why TEXT"),
        ("replay --dead-letters --id two/words", "at most 100 letters"),
        ("replay --dead-letters --label refund", "a dead letter has no label"),
        ("verify --adapter xyz", "hexadecimal"),
        ("verify --until 2026-03-02", "--until needs --since"),
        ("verify --since yesterday", "write it as"),
    ],
)
def test_what_cannot_be_asked_is_told(line: str, said: str) -> None:
    """In one line, which says how to mend it."""
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, SettingsError)
    assert said in str(result.exception)
    assert result.exception.exit_code == EXIT_SETTINGS


def test_it_counts_and_says_how_to_go_on(world: KafkaWorld, run: Callable[..., Result]) -> None:
    """How many, by partition; the command that would do it on standard error, out of a pipe's way.
    With nothing left to do --execute loads no model."""
    records = world.publish_inputs([b"planted text"] * 20, batch=20)
    world.publish([world.result(record) for record in records], batch=20)

    def replay(*options: str) -> tuple[str, str]:
        done = run("replay", *options)
        assert done.exit_code == 0, done.exception
        return done.stdout, done.stderr

    out, err = replay("--dead-letters", "--id", "bug-17")
    assert out == "2 records to label again (by partition 0: 1, 1: 1)\n"
    assert err == "nothing was done: add --execute --id bug-17 --why TEXT to do it\n"
    out, _ = replay("--offsets", "0:2-4")
    assert out == "at most 3 records to label again (by partition 0: 3)\n"
    out, err = replay("--label", "weather", "--execute", "--id", "x", "--why", "y")
    assert out == "0 records to label again\npublished: 0 labels, 0 dead letters\n"
    assert err == ""
    found = json.loads(replay("--dead-letters", "--json", "--id", "bug-17")[0])
    assert (found["schema"], found["id"]) == ("replay/1", "bug-17")
    assert found["chosen"] == {"0": 1, "1": 1}
