"""Waiting for answers without waiting for ever: is it the engine that is silent, or one message?

A running worker finds that out by the answers that go on coming. A command that labels a given set
of messages has none of those once the others are done, so it asks a prompt that the engine knows.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait

from worker.contract import Manifest
from worker.engine.port import Answer, Engine
from worker.errors import EngineDied

_CHECK_S = 1.0


def wait_for_answers(
    engine: Engine, manifest: Manifest, waiting: Collection[Future[Answer]], silence_s: float
) -> set[Future[Answer]]:
    """Return which of ``waiting`` are answered, at least one.

    Where nothing is answered for ``silence_s`` (seconds), a golden prompt is asked. Once that is
    answered so long is waited again (a long message may be slower, and the second stage of a
    cascade is asked by another prompt than the golden one); then all that wait are cancelled and
    returned. Raises EngineDied, also where the engine does not answer the golden prompt.
    """
    done = _wait(engine, waiting, silence_s)
    if done:
        return done
    known = engine.submit(manifest.golden[0].ids)
    done = _wait(engine, (known, *waiting), silence_s)
    if not done:
        raise EngineDied(f"the engine has answered nothing for {2 * silence_s:g} s")
    if isinstance(error := known.exception() if known in done else None, EngineDied):
        raise error
    known.cancel()
    done = done - {known} or _wait(engine, waiting, silence_s)
    if not done:
        for future in waiting:
            future.cancel()
    return done or set(waiting)


def _wait(
    engine: Engine, waiting: Collection[Future[Answer]], timeout_s: float
) -> set[Future[Answer]]:
    """Return what is answered first, nothing after ``timeout_s``. Raises EngineDied: a part of an
    engine may die without failing what it has."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        done, _ = wait(waiting, timeout=min(left, _CHECK_S), return_when=FIRST_COMPLETED)
        if done:
            return done
        engine.check_health()
    return set()


def why_cancelled(silence_s: float) -> str:
    """Say in words why ``wait_for_answers`` has cancelled a message."""
    return f"no answer within {2 * silence_s:g} s, but later ones had theirs"
