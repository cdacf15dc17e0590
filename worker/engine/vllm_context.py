"""The end of the ZeroMQ context that vLLM opens for its client and leaves to the collector."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

_POLL_S = 0.01

logger = logging.getLogger(__name__)


async def destroy_context(context: Any, within_s: float) -> bool:
    """Close what is open of a ``zmq.Context``, end it, and wait for that, but for so long only.

    Returns whether it has ended. Ending blocks until every socket is closed, and a socket may be
    closed by a callback that waits for this very loop. And when a peer is killed while it is sent
    to, libzmq 4.3.5 sometimes never finishes (2 of 5,500 kills of a small process, and once
    of an engine in its test): its threads are left then, for the process is about to end anyway.
    """

    def destroy() -> None:
        context.destroy(linger=0)

    thread = threading.Thread(target=destroy, name="zmq-end", daemon=True)
    thread.start()
    end = time.monotonic() + within_s
    while thread.is_alive():
        if time.monotonic() > end:
            logger.warning("the engine's sockets do not end within %s s: left behind", within_s)
            return False
        await asyncio.sleep(_POLL_S)
    return True
