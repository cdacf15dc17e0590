"""How fast the desk finds the next item among a million, and how soon its page is there.

    python -m tests.bench.desk [--items 1000000] [--database sqlite|postgresql] [--turns 2000]

Half of the items are decided, half wait, over 11 labels, 3 adapters, 3 combinations of reasons and
both origins. Ten people take turns; the queue is drawn again each time, some of them empty. Timed
are ``next_item`` and ``decide``, each with its transaction, and two requests through the whole
application, from the session's cookie to the last byte of HTML: what the page's script waits for
(POST /review: the decision, the next message, what was decided on similar ones), and the page when
it is opened (GET /review). The web server's own work on the socket is not in it.
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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

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
from tests.support.local_postgres import LocalPostgres
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
    """Seconds of each call, by its kind."""

    took: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, began_s: float) -> None:
        self.took.setdefault(kind, []).append(time.perf_counter() - began_s)

    def show(self) -> None:
        """Print what they took, in milliseconds."""
        for kind, took in self.took.items():
            parts = [1000 * each for each in statistics.quantiles(took, n=100)]
            print(f"{kind:18} {len(took):5,} calls   p50 {parts[49]:.1f}, p99 {parts[98]:.1f} ms")
        print(f"load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def measure_calls(desk: Desk, team: list[Person], turns: int, clocks: Clocks) -> None:
    """Time the functions that find the next item and decide it."""
    draw = random.Random(2)
    for turn in range(turns):
        person, queue = draw.choice(team), draw_queue(draw)
        began_s = time.perf_counter()
        task = reviewing.next_item(desk, person, queue)
        clocks.add("next_item" if task is not None else "next_item, nothing", began_s)
        if task is None:
            continue
        label, request_id = draw.choice(LABELS), f"{time.monotonic_ns()}.{turn}"
        began_s = time.perf_counter()
        reviewing.decide(
            desk,
            person,
            task.item_id,
            reviewing.Said(request_id, "label", label, seconds=5),
        )
        clocks.add("decide", began_s)


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
            began_s = time.perf_counter()
            after = await self._ask("POST", {**shown, **given})
            self._clocks.add("POST /review", began_s)
            shown, ahead = ahead, after
            if turn % 10 == 9:
                began_s = time.perf_counter()
                await self._ask("GET", {})
                self._clocks.add("GET /review", began_s)

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
        task = body.partition("data-last")[0]  # the forms after it change earlier answers
        found = re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)"', task)
        return {name: html.unescape(value) for name, value in found}


def measure(desk: Desk, turns: int) -> Clocks:
    """Take turns as the desk's own process does, and return what they took."""
    clocks = Clocks()
    team = [people.arrive(desk, f"person{n}", f"Person {n}") for n in range(10)]
    app = build_application(desk, OPTIONS)
    with start_up_frozen():
        measure_calls(desk, team, turns, clocks)
        for person in team:
            asyncio.run(Browser(app, desk, person, clocks).decide(turns // len(team)))
    return clocks


@contextmanager
def opened(kind: str) -> Iterator[Database]:
    """A database of this kind in a temporary folder."""
    with ExitStack() as stack:
        if kind == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clerk-bench-"))
            url = f"sqlite:///{folder}/desk.db"
        else:
            server = stack.enter_context(LocalPostgres())
            url = server.url(server.create())
        database = Database(url)
        stack.callback(database.close)
        yield database


def main() -> None:
    """Fill a database, take turns, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--turns", type=int, default=2000)
    given = parser.parse_args()
    with opened(given.database) as database:
        migrate(database)
        began = time.perf_counter()
        fill(database, given.items, now_ms())
        print(f"{given.items:,} items, filled in {time.perf_counter() - began:.0f} s")
        desk = open_desk(database, taxonomy=TAXONOMY, policy=Policy())
        measure(desk, 50)  # caches
        measure(desk, given.turns).show()


if __name__ == "__main__":
    main()
