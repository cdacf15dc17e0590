"""``clerk-worker replay`` and ``verify``: what cannot be asked is told, before Kafka is."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

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
