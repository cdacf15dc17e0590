"""A receiver of webhooks on loopback that misbehaves on request."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.processes import serving

Answer = int | str
"""A status, or "slow", "reset", "redirect"."""


@dataclass
class Receiver:
    """Headers and body of each received request, refused ones included."""

    url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    def labels(self) -> list[str]:
        """Labels of the accepted requests, in order."""
        return self.taken


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run one; it accepts everything unless ``answers`` says otherwise."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            state.seen.append((dict(self.headers.items()), body))
            answer: Answer = state.answers.popleft() if state.answers else 204
            if answer == "slow":
                time.sleep(1.5)
                answer = 204
            if answer == "reset":
                self.connection.close()
                return
            if answer == "redirect":
                self.send_response(302)
                self.send_header("Location", state.url)
                self.end_headers()
                return
            if answer == 204:
                state.taken.append(json.loads(body)["data"].get("label", ""))
            try:
                self.send_response(int(answer))
                self.end_headers()
            except OSError:  # the sender did not wait
                return

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as address:
        state.url = f"{address}/decisions"
        yield state
