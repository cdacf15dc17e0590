"""Who waits for the database's one write gets it in the order of coming."""

from __future__ import annotations

import threading
import time

from desk.store.turns import Turns


def test_whoever_waited_longest_is_next() -> None:
    """Also before the one that has just had it, and wants it again."""
    turns, order = Turns(), list[str]()
    assert turns.acquire(1)

    def wait(name: str) -> None:
        assert turns.acquire(30)
        order.append(name)
        turns.release()

    threads = []
    for name in ("first", "second", "third"):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
    turns.release()
    wait("again")
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second", "third", "again"]


def test_who_gives_up_is_passed_over() -> None:
    """And the turn is not lost with them."""
    turns = Turns()
    assert turns.acquire(1)
    assert not turns.acquire(0.01)
    turns.release()
    assert turns.acquire(1)
    turns.release()
