"""Whether the corrections topic agrees with the database while the desk and PostgreSQL are killed.

    python -m tests.bench.desk_faults [--decisions 5000] [--kills 100] [--seed 1]

Two replicas of the desk (`clerk-desk run`) on PostgreSQL and real Kafka. Eight reviewers, two of
them owners, decide over HTTP as a browser does: a request that was not answered is sent again as it
was. They also decide that no label fits, undo, reopen what they decided, and as owners reopen and
settle what others decided. A desk, PostgreSQL, or both are killed with SIGKILL and started again,
after a random number of decisions and at a random moment, so that a slow machine is as hard a trial
as a quick one; one desk in five is killed a second time while it starts.

In the end the topic holds each record once, in the order of its number, and a router that reads it
has the database's label for each item, and none for an item without one. No page may fail
otherwise than by "try again", and no desk may end by itself.
"""

from __future__ import annotations

import argparse
import collections
import html
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2
import sqlalchemy as sa

from desk.errors import DatabaseUnavailable
from desk.store.database import Database
from desk.store.migrate import migrate
from tests.support.desk_messages import publish_results
from tests.support.local_postgres import LocalPostgres
from tests.support.processes import answering, free_ports
from tests.support.topics import create_topics, labels_of, read_messages
from worker.contract.records import read_correction
from worker.contract.taxonomy import Taxonomy
from worker.demo.broker import LocalBroker

ROOT = Path(__file__).parents[2]
TOPICS = {name: f"faults.{name}" for name in ("in", "labels", "review", "corrections")}
ACTIONS = ("label:refund", "label:payment", "label:order_tracking", "none")
REVIEWERS = 8
OWNERS = 2


class Process:
    """The desk, which is killed and restarted. ``deaths`` counts how often it ended by itself
    after its start."""

    def __init__(self, environment: Mapping[str, str], port: int) -> None:
        self._environment = {**os.environ, **environment}
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        command = [sys.executable, "-m", "desk", "run"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL
        )
        return self._process

    def start(self) -> None:
        with answering(f"{self.url}/livez", self.begin()):
            return

    def live(self) -> None:
        """Restart it if it ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self.deaths += 1
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)


class Person(threading.Thread):
    """Decides until nothing is left, whatever happens to the desk.

    ``answers`` counts the desk's answers by what was asked and their status.
    """

    def __init__(self, url: str, number: int, items: int) -> None:
        super().__init__(daemon=True)
        self._url, self._draw = url, random.Random(number)
        self._headers = {"X-Forwarded-User": f"person{number}"}
        self._owner = number < OWNERS
        self._items = items
        self._mine: list[str] = []
        self._csrf = ""
        self.done = 0
        self.again: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Load a message and decide it, until the page says that nothing waits."""
        try:
            with httpx2.Client(base_url=self._url, headers=self._headers, timeout=20) as client:
                self._decide_all(client)
        except BaseException as error:
            self.failure = error
            raise

    def _decide_all(self, client: httpx2.Client) -> None:
        idle = 0
        while idle < 30:
            if self._owner and self._decide(client, "/adjudicate"):
                continue
            if not self._decide(client, "/review"):
                idle += 1
                time.sleep(1)
                continue
            idle = 0
            choice = self._draw.random()
            if choice < 0.08:
                self._post(client, "/review", {"action": "undo"})
            elif choice < 0.16:
                any_item = str(self._draw.randint(1, self._items))
                item = any_item if self._owner else self._draw.choice(self._mine)
                self._post(client, "/reopen", {"item": item, "request": uuid.uuid4().hex})

    def _decide(self, client: httpx2.Client, path: str) -> bool:
        """Decide the item that a page shows; tell whether there was one."""
        found = self._form(client, path)
        if found.get("action") == "next":
            self._patiently(client, "POST", path, found)
            found = self._form(client, path)
        if "item" not in found or "action" in found:
            return False
        form = {name: html.unescape(value) for name, value in found.items()}
        self._csrf = form["csrf"]
        self._mine.append(form["item"])
        self.done += self._post(client, path, {**form, "action": self._draw.choice(ACTIONS)}) == 303
        return True

    def _form(self, client: httpx2.Client, path: str) -> dict[str, str]:
        page = self._patiently(client, "GET", path).text
        return dict(re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)"', page))

    def _post(self, client: httpx2.Client, path: str, form: Mapping[str, str]) -> int:
        status = self._patiently(client, "POST", path, {"csrf": self._csrf, **form}).status_code
        what = "undo" if form.get("action") == "undo" else path
        assert status in {303, 403, 409}, (what, status)
        self.answers[what, status] += 1
        return status

    def _patiently(
        self, client: httpx2.Client, method: str, path: str, form: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        until = time.monotonic() + 300
        while True:
            try:
                answer = client.request(method, path, data=dict(form) if form else None)
            except httpx2.TransportError:
                self.again["without an answer"] += 1
            else:
                if answer.status_code < 500:
                    return answer
                self.again[f"answered {answer.status_code}"] += 1
            assert time.monotonic() < until, "the desk does not come back"
            time.sleep(0.5)


def count(database: Database, what: str) -> int:
    """A count from the database; -1 while it is unavailable."""
    try:
        with database.read() as tx:
            return int(tx.execute(sa.text(f"SELECT count(*) FROM {what}")).scalar_one())
    except DatabaseUnavailable:
        return -1


def torment(
    desks: Sequence[Process],
    server: LocalPostgres,
    team: Sequence[Person],
    draw: random.Random,
    every: float,
) -> collections.Counter[str]:
    """Kill a desk, PostgreSQL or both, each time after about ``every`` decisions, until everybody
    is done; return how often each."""
    kills: collections.Counter[str] = collections.Counter()
    due = draw.uniform(0, every)
    while any(each.is_alive() for each in team):
        time.sleep(draw.uniform(0, 0.3))
        for desk in desks:
            desk.live()
        if sum(each.done for each in team) < due:
            continue
        which, desk = draw.choice(("desk", "PostgreSQL", "both")), draw.choice(desks)
        if which != "PostgreSQL":
            desk.kill()
            kills["desk"] += 1
        if which != "desk":
            server.kill()
            kills["PostgreSQL"] += 1
            time.sleep(draw.uniform(0, 1))
            server.start()
        if which != "PostgreSQL":
            if draw.random() < 0.2:
                desk.begin()
                time.sleep(draw.uniform(0, 5))
                desk.kill()
                kills["desk, as it starts"] += 1
            desk.start()
        due = sum(each.done for each in team) + draw.uniform(0, 2 * every)
    return kills


def check(database: Database, servers: str) -> None:
    """Compare the topic with the database. Raises AssertionError where they differ."""
    with database.read() as tx:
        rows = tx.execute(
            sa.text("SELECT result_id, outcome_label FROM items WHERE outcome = 'label'")
        )
        expected = {row[0]: row[1] for row in rows}
        last = tx.execute(sa.text("SELECT max(sequence) FROM outbox")).scalar_one()
    records = read_messages(servers, TOPICS["corrections"])
    numbers = [int(dict(record.headers() or ())["clerk.desk.sequence"] or "") for record in records]
    said = [read_correction(record.value()) for record in records]
    kinds = collections.Counter(each.kind for each in said)
    known = labels_of(said)
    differ = {id_ for id_ in known.keys() | expected.keys() if known.get(id_) != expected.get(id_)}
    print(f"{kinds['correction']:,} corrections, {kinds['retraction']:,} retractions; of ", end="")
    print(f"{len(expected):,} items with a label {len(differ)} differ from the database")
    assert numbers == list(range(1, last + 1)), "a record is twice in the topic, or lost"
    assert not differ
    assert kinds["retraction"]


def run(given: argparse.Namespace, broker: LocalBroker, server: LocalPostgres) -> None:
    """Start the desks, have everybody decide while they are killed, and compare."""
    servers = broker.bootstrap_servers
    create_topics(servers, TOPICS.values())
    taxonomy = Taxonomy.from_toml(ROOT / "config" / "taxonomy.toml")
    doubt = {"reasons": ["low_confidence"]}
    publish_results(
        servers, TOPICS, taxonomy, [(f"message {n}", doubt) for n in range(given.decisions)]
    )
    database = Database(server.url(server.create()))
    migrate(database)
    settings = {
        "DATABASE__URL": database.engine.url.render_as_string(hide_password=False),
        "KAFKA__BOOTSTRAP_SERVERS": servers,
        "KAFKA__OUTPUT_TOPIC": TOPICS["labels"],
        "KAFKA__REVIEW_TOPIC": TOPICS["review"],
        "KAFKA__CORRECTIONS_TOPIC": TOPICS["corrections"],
        "WEB__METRICS_PORT": "0",
        "SIGN_IN__METHOD": "proxy",
        "SIGN_IN__PROXY_ADDRESSES": "127.0.0.1",
        "SIGN_IN__OWNERS": json.dumps([f"person{n}" for n in range(OWNERS)]),
        "REVIEW__DOUBLE_SHARE": "0.1",
        "REVIEW__PUBLISH_DELAY_S": "0.5",
        "REVIEW__CLAIM_S": "20",
        "AUDIT__SHARE": "0.1",
    }
    environment = {f"CLERK_DESK_{name}": value for name, value in settings.items()}
    desks = [
        Process({**environment, "CLERK_DESK_WEB__PORT": str(port)}, port) for port in free_ports(2)
    ]
    for desk in desks:
        desk.start()
    begun = time.monotonic()
    while count(database, "items WHERE state = 'open'") < min(200, given.decisions):
        time.sleep(0.5)
    team = [Person(desks[n % 2].url, n, given.decisions) for n in range(REVIEWERS)]
    for each in team:
        each.start()
    every = given.decisions / given.kills
    kills = torment(desks, server, team, random.Random(given.seed), every)
    assert not [each.failure for each in team if each.failure]
    until = time.monotonic() + 120
    while count(database, "outbox WHERE published_ms IS NULL"):
        assert time.monotonic() < until, "corrections wait for ever"
        time.sleep(1)
    seconds = time.monotonic() - begun
    print(f"{sum(each.done for each in team):,} decisions by {REVIEWERS} people in {seconds:.0f} s")
    again = sum((each.again for each in team), collections.Counter[str]())
    answers = sum((each.answers for each in team), collections.Counter[tuple[str, int]]())
    print(f"requests sent again: {dict(again)}; killed: {dict(kills)}")
    print("answers:", {f"{what} {status}": n for (what, status), n in sorted(answers.items())})
    check(database, servers)
    assert sum(each.done for each in team) >= given.decisions
    assert min(answers["undo", 303], answers["/reopen", 303], answers["/adjudicate", 303])
    assert set(again) <= {"without an answer", "answered 503"}
    deaths = sum(desk.deaths for desk in desks)
    assert not deaths, f"a desk ended by itself {deaths} times"
    for desk in desks:
        desk.kill()
    database.close()


def main() -> None:
    """Run it, print what happened, and fail where the topic differs from the database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with LocalBroker() as broker, LocalPostgres() as server:
        run(given, broker, server)


if __name__ == "__main__":
    main()
