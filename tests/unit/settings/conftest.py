"""A settings file, and the printed settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.settings import LoadedSettings, effective

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's own settings."""
    for name in os.environ:
        if name.startswith("CLERK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file of this content."""

    def make(content: str) -> Path:
        path = tmp_path / "worker.toml"
        path.write_text(content)
        return path

    return make


def shown(loaded: LoadedSettings) -> dict[str, tuple[str, str]]:
    return {name: (value, origin) for name, value, origin in effective(loaded)}
