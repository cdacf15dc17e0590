"""What `helm test` runs in the cluster, run here against real HTTP servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.chart.render import CHART
from tests.support.loopback import serving

SCRIPT = (CHART / "files" / "check_workers.py").read_text(encoding="utf-8")


@contextmanager
def worker(pages: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server with these pages, as host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        yield url.removeprefix("http://")


def check(*targets: str) -> tuple[int, str]:
    """Run the script as the test pod does."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *targets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


INFO = (200, {"adapter": "support"})
READY = {"/readyz": (200, {"ok": True, "why": []}), "/info": INFO}


def test_workers_that_are_ready_pass_and_say_what_they_serve() -> None:
    """Exit 0, one line a worker and its information."""
    with worker(READY) as first, worker(READY) as second:
        code, said = check(first, second)
    assert code == 0
    assert '{"adapter": "support"}' in said
    assert "2 of 2 workers are ready" in said


def test_one_that_is_not_ready_fails_and_says_why() -> None:
    """Exit 1 with the worker's own reason."""
    warming = {"/readyz": (503, {"ok": False, "why": ["the model is not warm"]}), "/info": INFO}
    with worker(READY) as first, worker(warming) as second:
        code, said = check(first, second)
    assert code == 1
    assert "the model is not warm" in said
    assert "1 of 2 workers are ready" in said


def test_something_else_on_the_port_is_no_worker() -> None:
    """An answer that is not JSON, a closed port, an unknown name, no worker at all: each exit 1."""
    with worker({"/readyz": (200, b"<html>"), "/info": INFO}) as stranger:
        assert check(stranger)[0] == 1
    assert "no answer" in check(stranger)[1]  # it is closed now
    assert check("workers.invalid:8080")[0] == 1
    assert check()[0] == 1
