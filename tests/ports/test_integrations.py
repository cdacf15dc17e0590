"""The programs of docs/integrations.md: repeats and kills give one record and one label each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness import Arena
from worker.demo.kafka_files import free_port

WEBHOOK, WRITE_BACK, ASK = (
    part.split("```", 1)[0]
    for part in Path("docs/integrations.md").read_text(encoding="utf-8").split("```python\n")[1:]
)


class Helpdesk(ThreadingHTTPServer):
    """Tickets by id, and how often each was written."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tickets)
        self.tickets: dict[str, dict[str, Any]] = {}
        self.written: Counter[str] = Counter()
        self.draw = random.Random(1)
        self.away = 0.0
        """How often it answers 503."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Tickets(BaseHTTPRequestHandler):
    server: Helpdesk

    def do_GET(self) -> None:
        self._answer(lambda ticket: ticket)

    def do_PUT(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def write(ticket: dict[str, Any]) -> dict[str, Any]:
            self.server.written[self.path] += 1
            ticket |= change
            return ticket

        self._answer(write)

    def _answer(self, act: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self.server.lock:
            ticket = self.server.tickets.get(self.path)
            away = self.server.draw.random() < self.server.away
            code = 404 if ticket is None else 503 if away else 200
            body = act(ticket) if ticket is not None and code == 200 else {}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None: ...


class Programs:
    """The page's two programs as processes, started again when they end or are killed."""

    def __init__(self, arena: Arena, helpdesk: Helpdesk) -> None:
        topics = arena.topics
        self.port = free_port()
        self._env = {
            **os.environ,
            "KAFKA": arena.servers,
            "TOPIC": topics["in"],
            "WEBHOOK_TOKEN": "secret",
            "TOPICS": f"{topics['out']},{topics['review']}",
            "HELPDESK": helpdesk.url,
            "HELPDESK_TOKEN": "token",
        }
        # A killed reader's partitions are waited for; its page keeps Kafka's default of 45 s.
        quick = '"group.id": "write-back", "session.timeout.ms": 6000,'
        self._code = {
            "webhook": (WEBHOOK, str(self.port)),
            "write-back": (WRITE_BACK.replace('"group.id": "write-back",', quick), ""),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = 0

    def keep_up(self) -> None:
        for name, (code, argument) in self._code.items():
            if name not in self._running or self._running[name].poll() is not None:
                self._running[name] = subprocess.Popen(
                    [sys.executable, "-c", code, argument], env=self._env
                )

    def kill(self, draw: random.Random) -> None:
        one = self._running[draw.choice(list(self._running))]
        one.kill()
        one.wait()
        self.kills += 1
        self.keep_up()

    def close(self) -> None:
        for one in self._running.values():
            one.kill()
            one.wait()

    def call(self, number: int, token: str = "secret", body: bytes | None = None) -> int:
        event = {"ticket": {"id": number}, "message": {"id": 1, "body": f"message {number}"}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}",
            body or json.dumps(event).encode(),
            {"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def deliver(self, number: int) -> None:
        """Call as a helpdesk does: until the answer is 200."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if self.call(number) == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"message {number} was not taken")


@pytest.fixture
def world(bootstrap_servers: str) -> Iterator[tuple[Arena, Helpdesk, Programs]]:
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        helpdesk = Helpdesk()
        threading.Thread(target=helpdesk.serve_forever, daemon=True).start()
        stack.callback(helpdesk.server_close)
        stack.callback(helpdesk.shutdown)
        programs = Programs(arena, helpdesk)
        stack.callback(programs.close)
        arena.start_worker()
        programs.keep_up()
        yield arena, helpdesk, programs


@pytest.mark.parametrize(
    ("messages", "kills"),
    [(150, 2), pytest.param(5000, 20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
def test_each_message_is_one_record_and_its_label_is_written_once(
    world: tuple[Arena, Helpdesk, Programs], messages: int, kills: int
) -> None:
    arena, helpdesk, programs = world
    draw = random.Random(messages)
    helpdesk.tickets = {f"/tickets/{number}": {} for number in range(messages)}
    helpdesk.away = 20 / messages
    programs.deliver(0)
    assert programs.call(1, token="guessed") == 401
    assert programs.call(1, body=b'{"ticket": 1}') == 400
    calls = [number for number in range(messages) for _ in range(draw.choice([1, 1, 2, 3]))]
    draw.shuffle(calls)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(programs.deliver, number) for number in calls]
        while not all(each.done() for each in waiting):
            done = sum(each.done() for each in waiting) / len(waiting)
            if done * (kills + 1) > programs.kills + 1 and programs.kills < kills:
                programs.kill(draw)
            programs.keep_up()
            arena.read_once(0.05)
        for each in waiting:
            each.result()
    arena.wait_for(messages)
    arena.read_for(2.0)
    assert len(arena.results) == len(set(arena.results)) == messages
    seen, moved = 0, time.monotonic()
    while len(helpdesk.written) < messages and time.monotonic() < moved + 60:
        programs.keep_up()
        time.sleep(0.2)
        if len(helpdesk.written) > seen:
            seen, moved = len(helpdesk.written), time.monotonic()
    assert programs.kills == kills
    assert set(helpdesk.written.values()) == {1}
    assert len(helpdesk.written) == messages
    assert {ticket["category"] for ticket in helpdesk.tickets.values()} <= {
        "billing",
        "delivery",
        "other",
    }


def test_a_form_gets_the_label_of_its_own_message(bootstrap_servers: str) -> None:
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        arena.start_worker().wait_until_ready("partitions.assigned")
        names: dict[str, Any] = {}
        exec(ASK, names)
        topics = arena.topics
        clerk = names["Clerk"](arena.servers, topics["in"], (topics["out"], topics["review"]))
        found = [clerk.ask(f"message {number}", 30) for number in range(3)]
        assert len({each["message_id"] for each in found}) == 3
        assert all(each["message_id"].startswith("ask-") for each in found)
        with pytest.raises(TimeoutError):
            clerk.ask(" ", 2)  # a dead letter: it has no text


def test_the_programs_are_as_short_as_the_page_says() -> None:
    assert max(len(code.splitlines()) for code in (WEBHOOK, WRITE_BACK, ASK)) <= 60
