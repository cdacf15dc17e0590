"""Garbage collection while a program works."""

from __future__ import annotations

import gc
import weakref

from worker.common.process import start_up_frozen


class Node:
    """One that holds itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def is_looked_through(something: object) -> bool:
    return any(each is something for each in gc.get_objects())


def test_existing_objects_are_skipped_and_new_ones_collected() -> None:
    old, before = Node(), gc.get_freeze_count()
    with start_up_frozen():
        assert not is_looked_through(old)
        new = Node()
        assert is_looked_through(new)
        gone = weakref.ref(new)
        del new
        gc.collect()
        assert gone() is None
    assert is_looked_through(old)
    assert gc.get_freeze_count() <= before
