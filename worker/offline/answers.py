"""Wait for answers with a limit, and tell a hanging engine from a single stuck message.

A running worker sees that from the answers to later messages. A command that labels a fixed set has
no later messages at the end, so it submits a golden prompt instead.
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
    """Return those of ``waiting`` that are answered, at least one.

    After ``silence_s`` seconds without an answer a golden prompt is submitted. When it is answered,
    the wait is repeated once: a long message may be slower, and the golden prompt does not test a
    cascade's second stage. Then all of ``waiting`` are cancelled and returned. Raises EngineDied,
    also if the golden prompt is not answered.
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
    """Return the first answered futures, none after ``timeout_s``. Raises EngineDied: a cascade's
    stage may die without failing its futures, so the health is checked in between."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        done, _ = wait(waiting, timeout=min(left, _CHECK_S), return_when=FIRST_COMPLETED)
        if done:
            return done
        engine.check_health()
    return set()


def why_cancelled(silence_s: float) -> str:
    """Return the reason for a message that ``wait_for_answers`` cancelled."""
    return f"no answer within {2 * silence_s:g} s, while later messages were answered"
