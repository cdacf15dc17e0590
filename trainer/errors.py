"""What can go wrong in training, named for what the caller does about it.

TrainerError
├── BadInput       fix the recipe, the data or the base; the message says where
├── NotGoodEnough  the judgement is no: better data, another recipe, or --force with a reason
└── ProofFailed    stop: what was about to be trained or published is not what it should be
"""

from __future__ import annotations

from importlib.util import find_spec


class TrainerError(Exception):
    """Base of every error the trainer raises on purpose."""


class BadInput(TrainerError):
    """A setting, a data line or the base cannot be used; one line that says how to fix it."""


class NotGoodEnough(TrainerError):
    """A check or a gate said no; the result was written, and says what fell short."""


class ProofFailed(TrainerError):
    """A check of the trainer's own work failed: a row, a forward pass or a file is wrong."""


def require(package: str, extra: str, purpose: str) -> None:
    """Check that an optional package is installed. Raises BadInput that says how to install it;
    ``purpose`` is the subject of its sentence."""
    if find_spec(package) is None:
        raise BadInput(f"{purpose} needs {package}: pip install 'filing-clerk[{extra}]'")
