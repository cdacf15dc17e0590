"""Where the worker keeps what it can make again: merged models, and the demo's downloads."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$CLERK_CACHE``, or ``filing-clerk`` in the user's cache folder. Not created here."""
    if named := os.environ.get("CLERK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "filing-clerk"
