"""How fast the desk finds the next item among a million, and how soon its page is there.

    python -m tests.bench.desk [--items 1000000] [--database sqlite|postgresql] [--turns 2000]

Half of the items are decided, half wait, over 11 labels, 3 adapters, 3 combinations of reasons and
both origins. Ten people take turns; the queue is drawn again each time, some of them empty. Timed
are ``next_item`` and ``decide``, each with its transaction, and two requests through the whole
application, from the session's cookie to the last byte of HTML: what the page's script waits for
(POST /review: the decision, the next message, what was decided on similar ones), and the page when
it is opened (GET /review). The web server's own work on the socket is not in it.

Seconds of CPU are of this process: all of SQLite's, and none of PostgreSQL's, of which the mean of
its processes is printed. ``--url`` names a database that stays: filled where it is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import itertools
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import psutil
from starlette.applications import Starlette
from starlette.types import Message, Scope

from desk.clock import now_ms
from desk.core.items import Order, Queue
from desk.service import people, reviewing
from desk.service.context import Desk, Policy, open_desk
from desk.store import items, tables
from desk.store.database import Database, Tx
from desk.store.items import NewItem
from desk.store.migrate import migrate
from desk.store.types import Person
from desk.web.application import build_application
from desk.web.visit import WebOptions
from worker.common.process import start_up_frozen
from worker.contract.records import record_id
from worker.contract.scoring import ReviewReason
from worker.contract.taxonomy import Label, Taxonomy

# A desk's database with very many items, for tests/bench/desk.py.


LABELS = tuple(f"label_{n:02}" for n in range(11))
TAXONOMY = Taxonomy("bench", "1", "", tuple(Label(name, "") for name in LABELS))
ADAPTERS = tuple(letter * 64 for letter in "abc")
REASONS: tuple[tuple[ReviewReason, ...], ...] = (
    ("low_confidence",),
    ("off_label_mass",),
    ("low_confidence", "off_label_mass"),
)
BASE = 1000
WORDS = 50_000
HALVES = 20_000
SPAN_MS = 30 * 86_400_000


_SEARCH_INDEX = "CREATE INDEX ix_texts_search ON texts USING gin (search)"
"""PostgreSQL's own, of the first migration."""


def fill(database: Database, count: int, begin_ms: int) -> None:
    """Put items into an empty database: 1,000, and these doubled until there are enough. Indices
    are made in the end, at once."""
    draw = random.Random(1)
    made = [*tables.items.indexes, *tables.texts.indexes]
    with database.write(patient=True) as tx:
        items.add(tx, [_item(draw, n) for n in range(BASE)], begin_ms)
        for index in made:
            index.drop(tx)
        _double(tx, count)
    with database.write(patient=True) as tx:
        if not database.is_sqlite:
            tx.exec_driver_sql("DROP INDEX ix_texts_search")
        _write_texts(tx, draw)
    with database.write(patient=True) as tx:
        for index in made:
            index.create(tx)
        if not database.is_sqlite:
            tx.exec_driver_sql(_SEARCH_INDEX)
            tx.exec_driver_sql("ANALYZE")


def _double(tx: Tx, count: int) -> None:
    step_ms = SPAN_MS // BASE
    tx.exec_driver_sql(
        f"UPDATE items SET received_ms = received_ms - {_rest('id * 7919', BASE)} * {step_ms}, "
        "text_state = 'here', state = 'open', message_sha256 = 'x'"
    )
    names = [column.name for column in tables.items.columns if column.name != "id"]
    there = BASE
    while there < count:
        changed = {
            "result_id": f"'in-0-' || (source_offset + {there})",
            "source_offset": f"source_offset + {there}",
            "received_ms": f"received_ms + {_rest('id * 104729', step_ms)}",
            "confidence": f"confidence * (0.9 + {_rest(f'id * 31 + {there}', 1000)} / 10000.0)",
            "state": f"CASE WHEN {_rest('id', 2)} = 0 THEN 'decided' ELSE 'open' END",
        }
        values = ", ".join(changed.get(name, name) for name in names)
        tx.exec_driver_sql(
            f"INSERT INTO items ({', '.join(names)}) SELECT {values} FROM items "
            f"WHERE id <= {min(there, count - there)} ORDER BY id"
        )
        there = min(2 * there, count)


def _rest(number: str, by: int) -> str:
    """Return SQL for what is left of a division: pg8000 takes a % for a parameter."""
    return f"({number} - ({number}) / {by} * {by})"


def _write_texts(tx: Tx, draw: random.Random) -> None:
    """Give each item a message of two halves and a number. Words are as frequent as in a language
    (Zipf's law), so that the first of them are in nearly all messages, and most in few."""
    words = [f"word{n}" for n in range(WORDS)]
    often = list(itertools.accumulate(1 / (1 + n) for n in range(WORDS)))
    tx.exec_driver_sql("CREATE TEMPORARY TABLE halves (n INTEGER PRIMARY KEY, half TEXT)")
    for begin in range(0, HALVES, 1000):
        some = (
            (n, draw.choices(words, cum_weights=often, k=12)) for n in range(begin, begin + 1000)
        )
        rows = ", ".join(f"({n}, '{' '.join(half)}')" for n, half in some)
        tx.exec_driver_sql(f"INSERT INTO halves VALUES {rows}")
    tx.exec_driver_sql(
        "INSERT INTO texts (item_id, text, received_ms) "
        "SELECT id, a.half || ' ' || b.half || ' number ' || id, received_ms "
        f"FROM items JOIN halves a ON a.n = {_rest('id', HALVES)} "
        f"JOIN halves b ON b.n = {_rest(f'id / {HALVES} * 7919 + id * 31', HALVES)}"
    )


def _item(draw: random.Random, n: int) -> NewItem:
    scores = dict.fromkeys(LABELS, 1 / len(LABELS))
    audit = draw.random() < 0.1
    return NewItem(
        result_id=record_id("in", 0, n),
        source_topic="in",
        source_partition=0,
        source_offset=n,
        source_ms=None,
        record_key=None,
        message_id=f"T-{n}",
        label=draw.choice(LABELS),
        confidence=draw.random(),
        scores=scores,
        off_label_mass=0.1,
        reasons=draw.choice(REASONS),
        truncated=False,
        adapter_name="bench",
        adapter_digest=draw.choice(ADAPTERS),
        taxonomy_digest=TAXONOMY.digest,
        labelled_ms=0,
        origin="audit" if audit else "review",
        sample_share=0.02 if audit else None,
        opinions_wanted=2 if draw.random() < 0.05 else 1,
    )


OPTIONS = WebOptions(method="local", port=0)
DAY_MS = 86_400_000


def draw_queue(draw: random.Random) -> Queue:
    """One of the queues that people choose; a third is everything, some hold nothing."""
    if draw.random() < 1 / 3:
        return Queue()
    orders: tuple[Order, ...] = ("oldest", "newest", "doubtful")
    order = draw.choice(orders)
    aged = order != "doubtful"
    return Queue(
        reason=draw.choice((None, None, "low_confidence", "off_label_mass")),
        label=draw.choice((None, "no such label", *LABELS)),
        adapter_digest=draw.choice((None, None, *ADAPTERS)),
        origin=draw.choice((None, None, None, "audit")),
        min_age_s=draw.choice((None, None, 86_400.0, 40 * 86_400.0)) if aged else None,
        order=order,
    )


@dataclass
class Clocks:
    """By kind of call, for each: its seconds, the seconds of CPU of this process, and of others."""

    others_s: Callable[[], float]
    took: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Time what is done meanwhile."""
        others_s, cpu_s, wall_s = self.others_s(), time.process_time(), time.perf_counter()
        yield
        spent = (time.perf_counter() - wall_s, time.process_time() - cpu_s)
        self.took.setdefault(kind, []).append((*spent, self.others_s() - others_s))

    def show(self) -> None:
        """Print what they took, in milliseconds."""
        for kind, took in self.took.items():
            print(f"{kind:18} {len(took):5,} calls", end="")
            walls, cpus, others = (
                [1000 * each for each in some] for some in zip(*took, strict=True)
            )
            for what, some in (("", walls), ("CPU ", cpus)):
                parts = statistics.quantiles(some, n=1000)
                p50, p99, most = parts[499], parts[989], max(some)
                print(f"   {what}p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms", end="")
            print(f"   PostgreSQL's CPU {statistics.fmean(others):.1f} ms" if any(others) else "")
        print(f"load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def measure_calls(desk: Desk, team: list[Person], turns: int, clocks: Clocks) -> None:
    """Time the functions that find the next item and decide it."""
    draw = random.Random(2)
    for turn in range(turns):
        person, queue = draw.choice(team), draw_queue(draw)
        spare = Clocks(clocks.others_s)
        with spare.timed("call"):
            task = reviewing.next_item(desk, person, queue)
        kind = "next_item" if task is not None else "next_item, nothing"
        clocks.took.setdefault(kind, []).extend(spare.took["call"])
        if task is None:
            continue
        request_id = f"{time.monotonic_ns()}.{turn}"
        with clocks.timed("decide"):
            label = draw.choice(LABELS)
            reviewing.decide(desk, person, task.item_id, label, request_id=request_id, seconds=5)


class Browser:
    """Somebody at the page, whose script has the next message while they read one."""

    def __init__(self, app: Starlette, desk: Desk, person: Person, clocks: Clocks) -> None:
        self._app = app
        self._clocks = clocks
        token = people.begin_session(desk, person, longest_ms=DAY_MS, idle_ms=DAY_MS)
        self._cookie = f"{OPTIONS.session_cookie}={token}"
        self._draw = random.Random(person.id)

    async def decide(self, turns: int) -> None:
        """Decide so many messages; load the page again after each tenth."""
        csrf = (await self._ask("GET", {}))["csrf"]
        begin = {"csrf": csrf, "action": "next", "part": "1"}
        shown = await self._ask("POST", begin)
        ahead = await self._ask("POST", {**begin, "excluding": shown["item"]})
        for turn in range(turns):
            action = f"label:{self._draw.choice(LABELS)}"
            beside = f"{ahead['item']},{shown['item']}"
            given = {"action": action, "part": "1", "seconds": "5.00", "excluding": beside}
            with self._clocks.timed("POST /review"):
                after = await self._ask("POST", {**shown, **given})
            shown, ahead = ahead, after
            if turn % 10 == 9:
                with self._clocks.timed("GET /review"):
                    await self._ask("GET", {})

    async def _ask(self, method: str, values: Mapping[str, str]) -> Mapping[str, str]:
        """Return the hidden fields of the form that comes back."""
        encoded = urlencode(values).encode()
        got: list[Message] = []
        wanted = iter([{"type": "http.request", "body": encoded if method == "POST" else b""}])

        async def receive() -> Message:
            return next(wanted, {"type": "http.disconnect"})

        async def send(message: Message) -> None:
            got.append(message)

        kind = b"application/x-www-form-urlencoded"
        headers = [(b"host", b"desk"), (b"cookie", self._cookie.encode()), (b"content-type", kind)]
        scope: Scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": "/review",
            "root_path": "",
            "query_string": encoded if method == "GET" else b"",
            "headers": headers,
            "client": ("::1", 1),
            "server": ("::1", 8090),
        }
        await self._app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in got[1:]).decode()
        assert got[0]["status"] == 200, body
        found = re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)"', body)
        return {name: html.unescape(value) for name, value in found}


def measure(desk: Desk, turns: int, others_s: Callable[[], float]) -> Clocks:
    """Take turns as the desk's own process does, and return what they took."""
    clocks = Clocks(others_s)
    team = [people.arrive(desk, f"person{n}", f"Person {n}") for n in range(10)]
    app = build_application(desk, OPTIONS)
    with start_up_frozen():
        measure_calls(desk, team, turns, clocks)
        for person in team:
            asyncio.run(Browser(app, desk, person, clocks).decide(turns // len(team)))
    return clocks


def cpu_below(pid: int) -> float:
    """Return the seconds of CPU that a process and its children have taken."""
    server = psutil.Process(pid)
    times = [each.cpu_times() for each in (server, *server.children())]
    return float(sum(each.user + each.system for each in times))


@contextmanager
def opened(kind: str, url: str) -> Iterator[tuple[Database, Callable[[], float]]]:
    """A database of this kind in a temporary folder, or the one at ``url``; and what tells the
    seconds of CPU of its own processes."""
    if url:
        database = Database(url)
        yield database, float
        database.close()
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="clerk-bench-") as folder:
            database = Database(f"sqlite:///{Path(folder) / 'desk.db'}")
            yield database, float
            database.close()
    else:
        from tests.support.local_postgres import LocalPostgres

        with LocalPostgres() as server:
            database = Database(server.url(server.create()))
            yield database, lambda: cpu_below(server.pid)
            database.close()


def main() -> None:
    """Fill a database, take turns, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--url", default="")
    parser.add_argument("--turns", type=int, default=2000)
    given = parser.parse_args()
    with opened(given.database, given.url) as (database, others_s):
        migrate(database)
        with database.read() as tx:
            is_empty = tx.exec_driver_sql("SELECT 1 FROM items LIMIT 1").first() is None
        if is_empty:
            began = time.perf_counter()
            fill(database, given.items, now_ms())
            print(f"{given.items:,} items, filled in {time.perf_counter() - began:.0f} s")
        desk = open_desk(database, taxonomy=TAXONOMY, policy=Policy())
        measure(desk, 50, others_s)  # caches
        measure(desk, given.turns, others_s).show()


if __name__ == "__main__":
    main()
