"""Keep Python's garbage collector from scanning start-up objects again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def start_up_frozen() -> Iterator[None]:
    """Within the context, the collector skips existing objects: modules, model, clients.

    They live as long as the program. Scanning them in each full collection takes a tenth of the
    worker's CPU time (``tests.bench.metrics``), and delays one in a hundred of the desk's pages by
    70 ms (``tests.bench.desk``). Later objects are collected as usual. The price: reference cycles
    among frozen objects, such as the first adapter's after a swap, are never freed.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
