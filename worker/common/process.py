"""What Python's garbage collector has to look through while a program works."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def start_up_frozen() -> Iterator[None]:
    """Have full collections pass over what is there already: modules, model, clients.

    It stays for as long as the program does. Looking through it each time is a tenth of the
    worker's CPU time (``tests.bench.metrics``), and holds one in a hundred of the desk's pages up
    for 70 ms (``tests.bench.desk``). What comes later is collected as ever. Cycles among what is
    frozen and no longer used, those of the first adapter once another serves, are kept.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
