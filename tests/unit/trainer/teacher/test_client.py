"""What headers, token counts, and refusals of an endpoint mean."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from trainer.errors import BadInput
from trainer.teacher.client import (
    Failure,
    Form,
    _refusal,
    _reply,
    _reset_s,
    _retry_after_s,
    check_url,
    is_local,
)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1h"}, None),
    ],
)
def test_the_wait_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert _retry_after_s(headers) == seconds
    assert _reset_s(headers) == (seconds if "x-ratelimit-remaining-tokens" in headers
                                 or headers.get("x-ratelimit-remaining-requests") == "0"
                                 else 0.0)  # fmt: skip


def test_the_wait_may_be_a_date() -> None:
    wait = _retry_after_s({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert wait is not None
    assert 25 < wait <= 30
    assert _retry_after_s({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0.0


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 5}, (90, 5)),
        # Hidden reasoning that is in the total alone.
        ({"prompt_tokens": 90, "completion_tokens": 5, "total_tokens": 150}, (90, 60)),
        ({"prompt_tokens": 90}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 5}, (None, None)),
        ({"prompt_tokens": 10**12, "completion_tokens": 5}, (None, None)),
        ({"prompt_tokens": "90", "completion_tokens": 5}, (None, None)),
        (None, (None, None)),
    ],
)
def test_tokens_are_the_servers_count_or_unknown(
    usage: object, tokens: tuple[int | None, int | None]
) -> None:
    choice = {"message": {"content": "refund"}, "finish_reason": "stop"}
    reply = _reply({"choices": [choice], "usage": usage}, {})
    assert reply is not None
    assert (reply.prompt_tokens, reply.answer_tokens) == tokens


@pytest.mark.parametrize("value", [None, [], {}, {"choices": []}, {"choices": [{}]}, "text"])
def test_what_is_no_completion_is_none(value: object) -> None:
    assert _reply(value, {}) is None


def test_an_empty_answer_that_was_charged_for_is_one() -> None:
    """Or its cost would not be known."""
    usage = {"prompt_tokens": 90, "completion_tokens": 5}
    reply = _reply({"choices": [], "usage": usage}, {})
    assert reply is not None
    assert (reply.content, reply.prompt_tokens) == (None, 90)


@pytest.mark.parametrize(
    ("status", "code", "kind", "free"),
    [
        (400, "bad", "rejected", True),
        (413, None, "rejected", True),
        (401, None, "stop", True),
        (404, None, "stop", True),
        (307, None, "stop", True),
        (408, None, "retry", False),
        (429, "rate_limit_exceeded", "retry", True),
        (429, "insufficient_quota", "stop", True),
        (500, None, "retry", False),
        (503, None, "retry", False),
    ],
)
def test_a_status_says_what_to_do_and_whether_it_costs(
    status: int, code: str | None, kind: str, free: bool
) -> None:
    found = _refusal(status, {}, {"error": {"code": code, "message": "about my parcel"}})
    assert (found.kind, found.free, found.code) == (kind, free, code)
    assert "parcel" not in repr(found)


def test_a_code_that_is_a_sentence_is_not_repeated() -> None:
    assert _refusal(400, {}, {"error": {"code": "my parcel is late"}}).code is None
    assert _refusal(400, {}, "my parcel is late").code is None


def test_a_form_becomes_simpler_until_none_is_left() -> None:
    refusal = Failure("rejected", 400)
    forms = [Form()]
    while (simpler := forms[-1].simpler(refusal)) is not None:
        forms.append(simpler)
    assert [form.constrains for form in forms] == ["schema", "choice", "text"]
    named = Failure("rejected", 400, named=frozenset({"max_tokens", "max_completion_tokens"}))
    assert Form().simpler(named) == Form(limit="max_completion_tokens")


@pytest.mark.parametrize(
    "url", ["", "host/v1", "ftp://host", "https://", "http://u:p@h/v1", "https://h/v1?key=1",
            "http://h:99999999/v1"]
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="--teacher") as refused:
        check_url(url)
    assert "u:p" not in str(refused.value)


def test_where_an_address_leads() -> None:
    assert check_url("https://api.example.com/v1") == "api.example.com"
    assert check_url("http://127.0.0.1:8000/v1") == "127.0.0.1:8000"
    assert is_local("http://[::1]:8000/v1")
    assert not is_local("http://localhost.example.com/v1")
