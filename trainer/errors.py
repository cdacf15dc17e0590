"""The trainer's errors, named for what the caller does about them.

TrainerError
├── BadInput       fix the recipe, the data or the base; the message says where
├── NotGoodEnough  a check or the gate failed: better data, another recipe, or --force with a reason
└── ProofFailed    stop: a check of the trainer's own work failed
"""

from __future__ import annotations

from importlib.util import find_spec


class TrainerError(Exception):
    """Base of every error the trainer raises on purpose."""


class BadInput(TrainerError):
    """A setting, a data line or the base cannot be used; one line for each thing that is wrong,
    which says how to fix it."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        listed = (f"\n  - {line}" for line in lines)
        super().__init__(
            lines[0] if len(lines) == 1 else f"{len(lines)} problems:{''.join(listed)}"
        )


class NotGoodEnough(TrainerError):
    """A check or the gate failed; the written result says why."""


class ProofFailed(TrainerError):
    """A check of the trainer's own work failed: a row, a forward pass or a file is wrong."""


def require(package: str, extra: str, purpose: str) -> None:
    """Raise BadInput, with the command that installs it, if an optional package is missing;
    ``purpose`` is the subject of the message."""
    if find_spec(package) is None:
        raise BadInput(f"{purpose} needs {package}: in the checkout, pip install -e '.[{extra}]'")
