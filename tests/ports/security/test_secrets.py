"""Secrets and messages appear nowhere: not in the worker's output, pages, records or logs.

Real broker. The worker and librdkafka log at debug level.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.harness import FAKE_WORKER
from tests.ports.test_observe import get
from tests.support.collector import Collector
from tests.support.secure_broker import KEY_PASSWORD
from tests.support.secure_desk import PLANTED, Desk, ways
from worker.demo.program import Program, start_worker


def pages_of(worker: Program) -> str:
    assert worker.url is not None
    paths = ("/metrics", "/info", "/livez", "/readyz", "/startupz", "/nothing")
    return "".join(get(worker.url, path)[1].decode() for path in paths)


def test_no_secret_and_no_message_appears_anywhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs at debug level with the client's own, HTTP pages, traces, `clerk-worker check-
    config`."""
    key = desk.kafka.client.key.read_text()
    settings = {
        **desk.settings(ways(desk.kafka)["scram"]),
        "kafka.client": f"{{'ssl.key.pem' = '''{key}''', 'ssl.key.password' = '{KEY_PASSWORD}', "
        f"'ssl.certificate.pem' = '''{desk.kafka.client.certificate.read_text()}'''}}",
        "kafka.producer": "{debug = 'all'}",
        "kafka.consumer": "{debug = 'all'}",
        "log.level": "'debug'",
        "log.format": "'json'",
        "tracing.enabled": "true",
        "http.port": "0",
    }
    desk.allow("scram")
    with ExitStack() as stack:
        collector = Collector()
        stack.callback(collector.close)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        log = desk.folder / "worker.log"
        worker = stack.enter_context(start_worker(settings, log, FAKE_WORKER))
        desk.label_all(worker, 20)
        written = pages_of(worker)
        assert worker.stop() == 0
        assert collector.spans
        written += "".join(map(str, collector.requests))
    assert "clerk_records_total" in written
    assert desk.group in written
    written += log.read_text(encoding="utf-8") + shown(settings)
    key_line = key.splitlines()[3]
    for planted in (*PLANTED, key_line):
        assert planted not in written


def shown(settings: Mapping[str, str]) -> str:
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-m", "worker", "check-config", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "scram-clerk" in done.stdout
    return str(done.stdout)
