"""What vLLM gives back, read as an answer. Its objects are stood in for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.engine.port import CodeScores
from worker.engine.vllm_answers import read_answer
from worker.errors import EngineDied, MessageRejected


def completion(logprobs: dict[int, float], reason: str = "length") -> SimpleNamespace:
    found = {token: SimpleNamespace(logprob=value) for token, value in logprobs.items()}
    return SimpleNamespace(finish_reason=reason, logprobs=[found])


def test_parts_of_the_codes_are_put_together() -> None:
    params = [SimpleNamespace(logprob_token_ids=[5]), SimpleNamespace(logprob_token_ids=[6])]
    found = [completion({5: -1.0, 9: -3.0}), completion({6: -2.0})]
    assert read_answer(toy_manifest(), params, found) == CodeScores({5: -1.0, 6: -2.0})


@pytest.mark.parametrize(("reason", "error"), [("abort", EngineDied), ("error", MessageRejected)])
def test_an_end_that_is_no_answer_is_told(reason: str, error: type[Exception]) -> None:
    params = [SimpleNamespace(logprob_token_ids=[5])]
    with pytest.raises(error):
        read_answer(toy_manifest(), params, [completion({5: -1.0}, reason)])
