"""Commands of the trainer as a user types them, quoted for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from worker.common.base_model import find_embedding_model, made_base_model

_PLACEHOLDERS = frozenset({"BASE", "DIR", "FILE", "NEW", "STORE", "RECIPE"})
"""Words that the reader fills in."""


def command(name: str, *words: str | Path) -> str:
    """Return a shell-quoted command line of the trainer."""
    given = [word if word in _PLACEHOLDERS else shlex.quote(str(word)) for word in words]
    return " ".join(["clerk-trainer", name, *given])


def base_words(directory: str | Path | None) -> tuple[str, ...]:
    """Return ``--base DIRECTORY``, or nothing for a base that ``--base auto`` finds anyway."""
    if directory is None or Path(directory) in {find_embedding_model(), made_base_model()}:
        return ()
    return "--base", str(directory)
