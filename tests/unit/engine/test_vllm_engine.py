"""Warm-up covers what will come."""

from __future__ import annotations

import asyncio
import importlib
import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract.errors import MessageRejected
from worker.engine.vllm_engine import destroy_context, read_logprobs, warm_up_rounds
from worker.errors import EngineDied


def test_every_prompt_is_one_that_the_engine_may_get() -> None:
    """Each begins and ends like a real one, and the longest possible is among them."""
    manifest = toy_manifest()
    spec = manifest.prompt
    rounds = list(warm_up_rounds(manifest, [golden.ids for golden in manifest.golden]))
    prompts = [prompt for batch in rounds for prompt in batch]
    assert all(prompt[: len(spec.prefix_ids)] == spec.prefix_ids for prompt in prompts)
    assert all(prompt[-len(spec.suffix_ids) :] == spec.suffix_ids for prompt in prompts)
    assert max(map(len, prompts)) == spec.max_prompt_tokens
    assert rounds[0] == [manifest.golden[0].ids]


def completion(logprobs: dict[int, float], reason: str = "length") -> SimpleNamespace:
    found = {token: SimpleNamespace(logprob=value) for token, value in logprobs.items()}
    return SimpleNamespace(finish_reason=reason, logprobs=[found])


def test_parts_of_the_codes_are_put_together() -> None:
    params = [SimpleNamespace(logprob_token_ids=[5]), SimpleNamespace(logprob_token_ids=[6])]
    found = [completion({5: -1.0, 9: -3.0}), completion({6: -2.0})]
    assert read_logprobs(params, found) == {5: -1.0, 6: -2.0}


@pytest.mark.parametrize(("reason", "error"), [("abort", EngineDied), ("error", MessageRejected)])
def test_completions_without_an_answer_are_errors(reason: str, error: type[Exception]) -> None:
    params = [SimpleNamespace(logprob_token_ids=[5])]
    with pytest.raises(error):
        read_logprobs(params, [completion({5: -1.0}, reason)])


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


def test_a_hanging_context_is_abandoned(zmq: Any, caplog: pytest.LogCaptureFixture) -> None:
    context = zmq.Context()
    socket = zmq.Context(context).socket(zmq.PULL)
    assert not asyncio.run(destroy_context(context, 0.1))
    assert "abandoned" in caplog.text
    socket.close()
