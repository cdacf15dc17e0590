"""Whether each decision reaches Kafka exactly once while the desk and its database are killed.

    python -m tests.bench.desk_faults [--decisions 5000] [--kills 100] [--seed 1]

The whole desk runs in its own process (`clerk-desk run`) on PostgreSQL and real Kafka. Eight people
decide over HTTP like browsers: a request without an answer is sent again unchanged. The desk,
PostgreSQL or both are killed with SIGKILL and started again, after a random number of decisions and
a random delay, so that the trial is as hard on a slow machine as on a fast one; one desk in five is
killed again while it starts. In the end the corrections topic must hold each decided item once,
with the database's label. A page may fail only with "try again", and no desk may end by itself.
"""

from __future__ import annotations

import argparse
import collections
import html
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2
import sqlalchemy as sa

from desk.errors import DatabaseAway
from desk.store.database import Database
from desk.store.migrate import migrate
from tests.support.desk_messages import publish_results
from tests.support.local_postgres import LocalPostgres
from tests.support.processes import answering, free_ports, wait_until
from tests.support.topics import create_topics, read_all
from worker.contract.records import read_correction
from worker.contract.taxonomy import Taxonomy
from worker.demo.broker import LocalBroker

ROOT = Path(__file__).parents[2]
TOPICS = {name: f"faults.{name}" for name in ("in", "labels", "review", "corrections")}
LABELS = ("refund", "payment", "order_tracking")


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
    """Decides until nothing is left, whatever happens to the desk."""

    def __init__(self, url: str, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._url, self._draw = url, random.Random(seed)
        self._headers = {"X-Forwarded-User": name}
        self.done = 0
        self.again: collections.Counter[str] = collections.Counter()
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
            page = self._patiently(client, "GET", "/review").text
            found = dict(re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)"', page))
            if found.get("action") == "next":
                self._patiently(client, "POST", "/review", found)
                continue
            if "item" not in found:
                idle += 1
                time.sleep(1)
                continue
            idle = 0
            form = {name: html.unescape(value) for name, value in found.items()}
            form["action"] = f"label:{self._draw.choice(LABELS)}"
            answer = self._patiently(client, "POST", "/review", form)
            assert answer.status_code in {303, 409}, answer.status_code
            self.done += answer.status_code == 303

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
    except DatabaseAway:
        return -1


def torment(
    desk: Process, server: LocalPostgres, team: list[Person], draw: random.Random, every: float
) -> collections.Counter[str]:
    """Kill one or both, each time after about ``every`` decisions, until all are done; return
    how often each."""
    kills: collections.Counter[str] = collections.Counter()
    due = draw.uniform(0, every)
    while any(each.is_alive() for each in team):
        time.sleep(draw.uniform(0, 0.3))
        desk.live()
        if sum(each.done for each in team) < due:
            continue
        which = draw.choice(("desk", "PostgreSQL", "both"))
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


def check(database: Database, servers: str) -> int:
    """Compare the topic with the database; return the number of corrections."""
    with database.read() as tx:
        rows = tx.execute(
            sa.text("SELECT result_id, outcome_label FROM items WHERE outcome = 'label'")
        )
        expected = {row[0]: row[1] for row in rows}
    corrections = [read_correction(value) for value in read_all(servers, TOPICS["corrections"])]
    often = collections.Counter(each.id for each in corrections)
    wrong = [each.id for each in corrections if expected.get(each.id) != each.label]
    twice = [id_ for id_, times in often.items() if times > 1]
    lost = expected.keys() - often.keys()
    faults = f"{len(twice)} twice, {len(lost)} lost, {len(wrong)} wrong"
    print(f"{len(corrections):,} corrections: {faults}")
    assert not twice + wrong
    assert not lost
    return len(corrections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    port = free_ports(1)[0]
    taxonomy = Taxonomy.from_toml(ROOT / "config" / "taxonomy.toml")
    with LocalBroker() as broker, LocalPostgres() as server:
        servers = broker.bootstrap_servers
        create_topics(servers, TOPICS.values())
        doubt = {"reasons": ["low_confidence"]}
        messages = [(f"message {n}", doubt) for n in range(given.decisions)]
        publish_results(servers, TOPICS, taxonomy, messages)
        database = Database(server.url(server.create()))
        migrate(database)
        settings = {
            "DATABASE__URL": database.engine.url.render_as_string(hide_password=False),
            "KAFKA__BOOTSTRAP_SERVERS": servers,
            "KAFKA__OUTPUT_TOPIC": TOPICS["labels"],
            "KAFKA__REVIEW_TOPIC": TOPICS["review"],
            "KAFKA__CORRECTIONS_TOPIC": TOPICS["corrections"],
            "WEB__PORT": str(port),
            "WEB__METRICS_PORT": "0",
            "SIGN_IN__METHOD": "proxy",
            "SIGN_IN__PROXY_ADDRESSES": "127.0.0.1",
            "REVIEW__DOUBLE_SHARE": "0",
            "REVIEW__PUBLISH_DELAY_S": "0",
            "REVIEW__CLAIM_S": "20",
            "AUDIT__SHARE": "0",
        }
        desk = Process({f"CLERK_DESK_{name}": value for name, value in settings.items()}, port)
        desk.start()
        begun = time.monotonic()
        while count(database, "items WHERE state = 'open'") < min(200, given.decisions):
            time.sleep(0.5)
        team = [Person(desk.url, f"person{n}", n) for n in range(8)]
        for each in team:
            each.start()
        every = given.decisions / given.kills
        kills = torment(desk, server, team, random.Random(given.seed), every)
        assert not [each.failure for each in team if each.failure]
        wait_until(lambda: not count(database, "outbox WHERE published_ms IS NULL"), 120)
        seconds = time.monotonic() - begun
        print(f"{sum(each.done for each in team):,} decisions by 8 people in {seconds:.0f} s,")
        again = sum((each.again for each in team), collections.Counter[str]())
        print(f"requests sent again: {dict(again)}; killed: {dict(kills)}")
        assert check(database, servers) == given.decisions
        assert set(again) <= {"without an answer", "answered 503"}
        assert not desk.deaths, f"the desk ended by itself {desk.deaths} times"
        desk.kill()
        database.close()


if __name__ == "__main__":
    main()
