"""``clerk-worker health``, a container's health check."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from worker.cli.adapters import ask
from worker.observe.server import HttpServer, Page


@pytest.fixture
def server() -> Iterator[HttpServer]:
    pages = {
        "/readyz": lambda: Page(b'{"ok": true, "why": []}\n', "application/json"),
        "/livez": lambda: Page(
            b'{"ok": false, "why": ["engine: gone", "no poll"]}\n', "application/json", 503
        ),
        "/odd": lambda: Page(b"<html>", "text/html"),
    }
    made = HttpServer("127.0.0.1", 0, pages)
    yield made
    made.close()


def test_a_healthy_worker_is_0(server: HttpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(f"{server.url}/readyz") == 0
    assert capsys.readouterr().out == f"{server.url}/readyz: ok\n"


def test_an_unhealthy_worker_is_1_and_says_why(
    server: HttpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(f"{server.url}/livez") == 1
    assert capsys.readouterr().err == f"{server.url}/livez: engine: gone; no poll\n"


def test_another_server_is_not_taken_for_a_worker(server: HttpServer) -> None:
    assert ask(f"{server.url}/nothing") == 1
    assert ask(f"{server.url}/odd") == 0


@pytest.mark.parametrize("url", ["https://127.0.0.1/readyz", "readyz", "http:///readyz"])
def test_a_malformed_url_is_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(url) == 2
    assert "write http://HOST:PORT/PATH" in capsys.readouterr().err


def test_no_proxy_is_used(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many containers have one in their environment."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert ask(f"{server.url}/readyz") == 0


def test_the_command_loads_nothing_heavy(server: HttpServer) -> None:
    """It runs every few seconds, next to an engine that needs the CPU."""
    code = (
        "import sys; from worker.cli import main\n"
        f"sys.argv = ['clerk-worker', 'health', '--url', '{server.url}/readyz']\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'structlog', 'confluent_kafka', 'torch', 'vllm', 'prometheus_client'}\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
