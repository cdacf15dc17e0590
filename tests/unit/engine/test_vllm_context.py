"""An engine's sockets are ended, and what does not end is not waited for."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

import pytest

from worker.engine.vllm_context import destroy_context


@pytest.fixture
def zmq() -> Any:
    """It comes with vLLM."""
    return importlib.import_module("zmq") if os.environ.get("CI") else pytest.importorskip("zmq")


def test_a_context_is_ended_with_its_sockets(zmq: Any) -> None:
    context = zmq.Context()
    sockets = [context.socket(zmq.PULL), context.socket(zmq.ROUTER)]
    assert asyncio.run(destroy_context(context, 10))
    assert context.closed
    assert all(socket.closed for socket in sockets)


def test_a_socket_that_the_loop_closes_is_waited_for(zmq: Any) -> None:
    """As vLLM's watch of its core does, from a thread of its own."""
    context = zmq.Context()
    socket = zmq.Context(context).socket(zmq.PULL)  # another's: not closed along

    async def destroy() -> bool:
        asyncio.get_running_loop().call_later(0.1, socket.close)
        return await destroy_context(context, 10)

    assert asyncio.run(destroy())


def test_what_does_not_end_is_left(zmq: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The caller goes on."""
    context = zmq.Context()
    socket = zmq.Context(context).socket(zmq.PULL)
    assert not asyncio.run(destroy_context(context, 0.1))
    assert "left behind" in caplog.text
    socket.close()
