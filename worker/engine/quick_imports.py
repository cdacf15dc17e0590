"""Importing vLLM without libraries that start threads of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OPTIONAL = ("sklearn", "scipy", "pandas")
"""transformers imports these where they are installed, for assisted generation and the losses of
object detection: not in an image of the worker, but next to the trainer. One of them starts a
thread, and a process with two threads must not be forked (``fit_to_fork``)."""


@contextmanager
def without_optional_libraries() -> Iterator[None]:
    """Have them look as if they were not installed; what is imported already stays.

    ``None`` in ``sys.modules`` is Python's own way to say so (docs of ``sys.modules``), to
    ``import`` as to ``importlib.util.find_spec``.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]
