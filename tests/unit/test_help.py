"""The help of every command, as a terminal with 80 columns shows it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

_WIDTH = 79  # rich leaves the last column empty


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a command and of all its subcommands."""
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


@pytest.mark.parametrize("program", ["worker", "desk", "trainer"])
def test_help_fits_80_columns_without_ragged_lines(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """With rich markup, the line breaks of a docstring stayed, and each line that was a little too
    long left one word alone on the next."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    app = importlib.import_module(f"{program}.cli.main").app
    for path in commands(get_command(app)):
        done = CliRunner().invoke(app, [*path, "--help"])
        assert done.exit_code == 0
        assert path or "Exit codes: 0" in done.output
        lines = [line.rstrip() for line in done.output.splitlines()]
        assert max(map(len, lines)) <= 80
        for line, following in pairwise(lines):
            if line.startswith(" ") and following.startswith(" ") and line.strip():
                word = following.split(maxsplit=1)[0] if following.strip() else "x" * _WIDTH
                assert len(line) + 1 + len(word) > _WIDTH, (path, line)
