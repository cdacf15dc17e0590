"""What Python's garbage collector has to look through while a worker works."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def start_up_frozen() -> Iterator[None]:
    """Have full collections pass over what is there already: modules, model, clients.

    It stays for as long as the worker does, and looking through it each time is a tenth of the
    loop's CPU time (``tests.bench.metrics``). What comes later is collected as ever. Cycles among
    what is frozen and no longer used, those of the first adapter once another serves, are kept.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
