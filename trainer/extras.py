"""Packages that only some users need: each is an extra of this project."""

from __future__ import annotations

from importlib.util import find_spec

from trainer.errors import BadInput


def require(package: str, extra: str, purpose: str) -> None:
    """Check that an optional package is installed. Raises BadInput that says how to install it;
    ``purpose`` is the subject of its sentence."""
    if find_spec(package) is None:
        raise BadInput(f"{purpose} needs {package}: pip install 'filing-clerk[{extra}]'")
