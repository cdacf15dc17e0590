"""Rights of files, for modules that are to need no third-party package."""

from __future__ import annotations

PRIVATE = 0o640
"""Rights of a file that holds messages: its owner and its group, nobody else."""
