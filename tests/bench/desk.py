"""How fast the desk finds the next item among a million.

    python -m tests.bench.desk [--items 1000000] [--database sqlite|postgresql] [--turns 2000]

Half of the items are decided, half wait, over 11 labels, 3 adapters, 3 combinations of reasons and
both origins. Ten people take turns; the queue is drawn anew each time, some of them empty. Each
turn is timed as a page waits for it: ``next_item`` and ``decide``, transactions and commits in; and
what the page's script waits for, all in one: the decision, the next message, what was decided on
similar ones, and the HTML of these. Seconds of CPU are of this process: all of SQLite's, and none
of PostgreSQL's, whose server has its own.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from desk.auth.attempts import Attempts
from desk.clock import now_ms
from desk.core.queue import Order, Queue
from desk.service import people, reviewing
from desk.service.context import Desk, Policy, open_desk
from desk.store import items, tables
from desk.store.database import Database, Tx
from desk.store.items import NewItem
from desk.store.migrate import migrate
from desk.web.options import WebOptions
from desk.web.pages.review import act
from desk.web.templates import environment
from desk.web.visit import Visit, Web, new_request
from worker.contract.records import record_id
from worker.contract.review import ReviewReason
from worker.contract.taxonomy import Label, Taxonomy

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


def fill(tx: Tx, count: int, begin_ms: int) -> int:
    """Put items into the database: 1,000, and these doubled until there are enough."""
    draw = random.Random(1)
    items.add(tx, [_item(draw, n) for n in range(BASE)], begin_ms)
    spread = "UPDATE items SET received_ms = received_ms - (id * 7919 % 1000) * :step, "
    tx.execute(
        sa.text(spread + "text_state = 'here', state = 'open', message_sha256 = 'x'"),
        {"step": SPAN_MS // BASE},
    )
    names = [column.name for column in tables.items.columns if column.name != "id"]
    there = BASE
    while there < count:
        changed = {
            "result_id": f"'in-0-' || (source_offset + {there})",
            "source_offset": f"source_offset + {there}",
            "received_ms": f"received_ms + (id * 104729 % {SPAN_MS // BASE})",
            "confidence": f"confidence * (0.9 + 0.1 * ((id * 31 + {there}) % 1000) / 1000.0)",
        }
        values = ", ".join(changed.get(name, name) for name in names)
        tx.exec_driver_sql(
            f"INSERT INTO items ({', '.join(names)}) SELECT {values} FROM items "
            f"WHERE id <= {min(there, count - there)}"
        )
        there = min(2 * there, count)
    tx.exec_driver_sql("UPDATE items SET state = 'decided' WHERE id % 2 = 0")
    _write_texts(tx, draw)
    return there


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
        f"FROM items JOIN halves a ON a.n = id % {HALVES} "
        f"JOIN halves b ON b.n = (id / {HALVES} * 7919 + id * 31) % {HALVES}"
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
        max_age_s=draw.choice((None, None, None, 86_400.0)) if aged else None,
        order=order,
    )


Took = dict[str, list[tuple[float, float]]]
"""By kind of call: the seconds that it took, and the seconds of CPU of this process."""


def measure(desk: Desk, turns: int) -> Took:
    """Take turns; return what they took."""
    draw = random.Random(2)
    team = [people.arrive(desk, f"person{n}", f"Person {n}") for n in range(10)]
    took: Took = {"next_item": [], "next_item, nothing": [], "decide": [], "page": []}
    for turn in range(turns):
        person, queue = draw.choice(team), draw_queue(draw)
        began = (time.perf_counter(), time.process_time())
        task = reviewing.next_item(desk, person, queue)
        took["next_item" if task is not None else "next_item, nothing"].append(_since(began))
        if task is None:
            continue
        began = (time.perf_counter(), time.process_time())
        reviewing.decide(
            desk, person, task.item_id, draw.choice(LABELS), request_id=str(turn), seconds=5
        )
        took["decide"].append(_since(began))
    web = Web(desk, WebOptions(), environment(), Attempts(desk.clock))
    for person in team:
        task = reviewing.next_item(desk, person, Queue())
        for _ in range(turns // 20):
            assert task is not None
            item, label = str(task.item_id), f"label:{draw.choice(LABELS)}"
            form = {"item": item, "action": label, "request": new_request(), "part": "1"}
            began = (time.perf_counter(), time.process_time())
            answer = act(Visit(web, person, "", "", form=form))
            took["page"].append(_since(began))
            assert answer.status_code == 200
            task = reviewing.next_item(desk, person, Queue())
    return took


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]


@contextmanager
def opened(kind: str) -> Iterator[Database]:
    """A database of this kind in a temporary folder."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="clerk-bench-") as folder:
            database = Database(f"sqlite:///{Path(folder) / 'desk.db'}")
            yield database
            database.close()
        return
    from tests.support.local_postgres import LocalPostgres

    with LocalPostgres() as server:
        database = Database(server.url(server.create()))
        yield database
        database.close()


def main() -> None:
    """Fill a database, take turns, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--turns", type=int, default=2000)
    given = parser.parse_args()
    with opened(given.database) as database:
        migrate(database)
        began = time.perf_counter()
        with database.write() as tx:
            count = fill(tx, given.items, now_ms())
        if not database.is_sqlite:
            with database.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql("ANALYZE")
        print(f"{given.database}: {count:,} items, filled in {time.perf_counter() - began:.0f} s")
        desk = open_desk(database, name="bench", taxonomy=TAXONOMY, policy=Policy())
        measure(desk, 50)  # caches
        for name, took in measure_again(desk, given.turns).items():
            print(f"{name:18} {len(took):5,} calls", end="")
            for what, some in zip(("", "CPU "), zip(*took, strict=True), strict=True):
                parts = statistics.quantiles(some, n=1000)
                p50, p99, most = (1000 * each for each in (parts[499], parts[989], max(some)))
                print(f"   {what}p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms", end="")
            print()


def measure_again(desk: Desk, turns: int) -> Took:
    """Measure with other request ids than the first time."""
    with desk.database.write() as tx:
        tx.exec_driver_sql("UPDATE decisions SET request_id = 'warm-' || request_id")
    return measure(desk, turns)


if __name__ == "__main__":
    main()
