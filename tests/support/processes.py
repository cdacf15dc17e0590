"""Programs and HTTP servers that run next to a test. Their output is shown if it fails."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
"""How long a step may take on a busy machine."""


def wait_until(reached: Callable[[], object], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.1)


def output_of(*arguments: str, **variables: str) -> str:
    """Run Python with these arguments and more variables in the project's folder; return the
    output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    """This process's variables without the worker's settings, plus more."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLERK_")}
    return {**clean, **more}


def worker_command(
    name: str, settings: Mapping[str, str], *options: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command of the worker with only these settings."""
    flags = [part for key, value in settings.items() for part in ("-s", f"{key}='{value}'")]
    return subprocess.run(
        [sys.executable, "-m", "worker", name, *options, *flags],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def verify(settings: Mapping[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    done = worker_command("verify", settings, "--json", *options)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def need_vllm() -> None:
    """Skip a test where vLLM is not installed; in CI that is a failure."""
    from worker.engine.vllm_config import vllm_is_installed

    if not vllm_is_installed():
        assert not os.environ.get("CI"), "CI must have vLLM"
        pytest.skip("vLLM is not installed")


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            yield process
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-3000:].decode(errors="replace"))
            raise
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def answering(url: str, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Wait until an address answers, then run the block."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=30).close()
            break
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < until, f"{url} does not answer"
        time.sleep(0.2)
    yield


def free_ports(count: int) -> list[int]:
    """Loopback ports on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


# A test's HTTP server on loopback.


POLL_S = 0.01
"""How often a server checks whether it should stop; the default of twice a second slows tests."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve until the end of the block; yield ``http://127.0.0.1:PORT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
