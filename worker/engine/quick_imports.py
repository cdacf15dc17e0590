"""Importing vLLM and what it stands on, seven thousand modules, in two thirds of the time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OPTIONAL = ("sklearn", "scipy", "pandas")
"""transformers takes these for helpers of its own: assisted generation and the losses of object
detection. An image of the worker has none of them; where the trainer is installed they are
there, a fifth of the time that importing vLLM takes."""


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


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep the garbage collector from looking through modules that stay anyway, now and later.

    It would do so each time that a quarter more of them is there, an eighth of the time. What is
    frozen afterwards is not looked through while the engine serves, nor copied in a fork.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
