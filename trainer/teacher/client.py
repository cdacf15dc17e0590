"""One request to an OpenAI-compatible endpoint, and what came of it.

The client's own retries are off, so that each request is in the ledger. It follows no redirect,
because messages must only reach the host that was named, and its debug log is off, because that
would contain messages.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from trainer.errors import BadInput, require
from trainer.teacher.prompt import Prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

TIMEOUT_S = 120.0
_MOST_TOKENS = 10**8  # a count above it is a mistake of the server's

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_REJECTED = frozenset({400, 413, 422})
_RETRIED = frozenset({408, 409, 425, 429})
# These come with status 429 as well, and no waiting helps.
_EMPTY = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Form:
    """How a request is written for this endpoint: the way to constrain the answer, the name of its
    length limit, and whether a temperature is accepted."""

    constrains: Literal["schema", "choice", "text"] = "schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True

    @property
    def words(self) -> str:
        """How answers are constrained, in a few words."""
        return {
            "schema": "by the server, to the labels (JSON schema)",
            "choice": "by the server, to the labels (vLLM's choice)",
            "text": "not by the server; checked here",
        }[self.constrains]

    def simpler(self, refusal: Failure) -> Form | None:
        """Return what to try after the endpoint refused this form; None if nothing is left."""
        if self.limit == "max_tokens" and "max_completion_tokens" in refusal.named:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in refusal.named:
            return replace(self, temperature=False)
        if self.constrains == "schema":
            return replace(self, constrains="choice")
        if self.constrains == "choice":
            return replace(self, constrains="text")
        return None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Token counts are the server's, None if it gave none; ``wait_s`` is how long it
    asks everybody to wait before the next request."""

    content: str | None
    refused: bool
    cut: bool
    prompt_tokens: int | None
    answer_tokens: int | None
    model: str | None
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer.

    ``kind``: ``rejected`` is about this request, ``retry`` passes, ``stop`` does not. ``free``: the
    server did no work for it. ``named`` are the parameters that the server's error names, and
    ``code`` its code; its text may quote the message and is dropped.
    """

    kind: Literal["rejected", "retry", "stop"]
    status: int | None
    code: str | None = None
    free: bool = False
    wait_s: float | None = None
    named: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """What happened, in a few words."""
        what = f"status {self.status}" if self.status else "no answer"
        return f"{what} ({self.code})" if self.code else what


def check_url(url: str, option: str = "--teacher") -> str:
    """Return the endpoint's host and port. Raises BadInput that names ``option``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise BadInput(f"{option}: expected an address such as https://HOST/v1")
    if parts.username is not None or parts.password is not None:
        raise BadInput(f"{option}: leave the login out of the address: use --key-env")
    return f"{host}:{port}" if port else host


def is_local(url: str) -> bool:
    """Whether the endpoint is on this machine."""
    return urlsplit(url).hostname in _LOCAL


class Teacher:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, url: str, model: str, key: str, *, answer_tokens: int) -> None:
        """``answer_tokens`` is the most that an answer may have."""
        require("openai", "teacher", "clerk-trainer label")
        import openai

        for name in ("openai", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.model = model
        self.answer_tokens = answer_tokens
        self._errors = openai
        self._client: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=key,
            base_url=url,
            timeout=TIMEOUT_S,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, prompt: Prompt, form: Form) -> Reply | Failure:
        """Send one request. Raises nothing that the endpoint causes."""
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                **self._body(prompt, form)
            )
        except self._errors.APIStatusError as error:
            return _refusal(error.status_code, error.response.headers, error.body)
        except self._errors.APIConnectionError as error:
            # A connection that was never made carried no request.
            never = type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}
            timed_out = isinstance(error, self._errors.APITimeoutError)
            return Failure("retry", None, "timeout" if timed_out else "connection", free=never)
        except self._errors.APIError:
            return Failure("retry", None, "unreadable")
        try:
            value = json.loads(raw.http_response.content)
        except (ValueError, RecursionError):
            value = None
        reply = _reply(value, raw.headers)
        return reply or Failure("retry", raw.http_response.status_code, "malformed")

    def _body(self, prompt: Prompt, form: Form) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            form.limit: self.answer_tokens,
        }
        if form.temperature:
            body["temperature"] = 0
        if form.constrains == "schema":
            schema = {"name": "label", "strict": True, "schema": dict(prompt.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form.constrains == "choice" and prompt.choices:
            body["extra_body"] = {"structured_outputs": {"choice": list(prompt.choices)}}
        return body


def _reply(value: Any, headers: Mapping[str, str]) -> Reply | None:
    """Read a completion; None if it is not one."""
    if not isinstance(value, dict):
        return None
    usage = value.get("usage")
    prompt_tokens, answer_tokens = _tokens(usage if isinstance(usage, dict) else {})
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        if prompt_tokens is None:
            return None
        first, message = {}, {}  # nothing was said, and it was charged for
    content, finish, model = message.get("content"), first.get("finish_reason"), value.get("model")
    return Reply(
        content=content if isinstance(content, str) else None,
        refused=bool(message.get("refusal")) or finish == "content_filter",
        cut=finish == "length",
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        model=model[:100] if isinstance(model, str) else None,
        wait_s=_reset_s(headers),
    )


def _tokens(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and answer, or None for both."""
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    prompt, answer, total = (
        count if isinstance(count, int) and 0 <= count <= _MOST_TOKENS else None for count in counts
    )
    if prompt is None or answer is None:
        return None, None
    # Some servers count hidden reasoning in the total alone, and charge for it.
    return prompt, max(answer, (total or 0) - prompt)


def _refusal(status: int, headers: Mapping[str, str], body: object) -> Failure:
    """Read an error status."""
    inner = body.get("error", body) if isinstance(body, dict) else {}
    fields = inner if isinstance(inner, dict) else {}
    code = next(
        (
            value
            for value in (fields.get("code"), fields.get("type"))
            if isinstance(value, str) and _WORD.fullmatch(value)
        ),
        None,
    )
    text = f"{fields.get('param')} {fields.get('message')}" if fields else str(body)
    named = frozenset(
        name
        for name in ("max_tokens", "max_completion_tokens", "temperature")
        if re.search(rf"\b{name}\b", text)
    )
    kind: Literal["rejected", "retry", "stop"]
    if status in _REJECTED:
        kind = "rejected"
    elif (status in _RETRIED and code not in _EMPTY) or status >= 500:
        kind = "retry"
    else:
        kind = "stop"
    # A 5xx may come from a proxy in front of a model that did the work, and so may a 408.
    free = status < 500 and status != 408
    return Failure(kind, status, code, free=free, wait_s=_retry_after_s(headers), named=named)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait, in seconds (RFC 9110, section 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            found = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if found >= 0:
            return found
    try:
        until = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return _reset_s(headers) or None
    return max(0.0, until - time.time())


def _reset_s(headers: Mapping[str, str]) -> float:
    """Return the seconds until a limit that is used up is reset, 0 if none is."""
    return max(
        (
            sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(reset))
            for kind in ("requests", "tokens")
            if headers.get(f"x-ratelimit-remaining-{kind}") == "0"
            and (reset := headers.get(f"x-ratelimit-reset-{kind}", ""))
        ),
        default=0.0,
    )
