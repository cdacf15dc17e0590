"""What it costs the desk to take in messages, and how long reviewers wait meanwhile.

    python -m tests.bench.desk_loads [--rows 5000] [--database sqlite|postgresql]

Printed are the milliseconds of CPU that this process takes for a row: of a table that an owner
uploads, and of Kafka's results with their messages (from topics in memory, so without a client);
then the longest transactions of a reviewer who draws the next message all the time while the table
is loaded again under another name.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from desk.clock import now_ms
from desk.core.items import Queue
from desk.inbox import InboxReader, Sampling, TextFetcher
from desk.service import circle, people, reviewing, uploads
from desk.service.context import Desk, Policy, open_desk
from desk.store.migrate import migrate
from desk.stream.fake import FakeResults, FakeTexts, FakeTopics
from tests.bench.desk import TAXONOMY, opened
from tests.support.desk_results import result
from worker.contract.records import InputFormat

WORDS = (
    "where", "is", "my", "order", "refund", "card", "please", "thanks", "hello", "parcel", "shop",
    "late", "size", "wrong", "broken", "return", "money", "back", "the", "a", "of", "and",
)  # fmt: skip


def messages(rows: int) -> list[str]:
    """Return different messages of thirty words."""
    draw = random.Random(1)
    return [f"{n} {' '.join(draw.choices(WORDS, k=30))}" for n in range(rows)]


def load(desk: Desk, rows: int, name: str) -> None:
    """Load a table of messages."""
    table = "\n".join(("text", *(f"{name} {each}" for each in messages(rows)))).encode()
    circle.load_tasks(desk, uploads.table_tasks(table, f"{name}.csv", TAXONOMY.names))


def take_in(desk: Desk, rows: int) -> None:
    """Take in results and their messages, as the desk does from Kafka."""
    topics = FakeTopics()
    topics.append("in", *(b'{"message": "%s"}' % each.encode() for each in messages(rows)))
    about = {"name": TAXONOMY.name, "version": TAXONOMY.version, "digest": TAXONOMY.digest}
    label, other = TAXONOMY.names[:2]
    said: dict[str, Any] = {"label": label, "scores": {label: 0.7, other: 0.3}, "taxonomy": about}
    topics.append(
        "out", *(result("in", n, reasons=["low_confidence"], **said) for n in range(rows))
    )
    sampling = Sampling("seed", 0.0, 0.0, 0.0)
    reader = InboxReader(desk.database, FakeResults(topics), ["out"], sampling, desk.clock)
    fetcher = TextFetcher(desk.database, FakeTexts(topics), InputFormat(), desk.clock)
    while reader.run_once() + fetcher.run_once():
        pass


def measure(name: str, rows: int, work: Callable[[], None]) -> None:
    """Print the CPU of some work for a row."""
    began = time.process_time()
    work()
    print(f"{name:24} {1000 * (time.process_time() - began) / rows:.2f} ms of CPU a row")


def waits(desk: Desk, rows: int) -> list[float]:
    """Return the seconds that each drawing of the next message took while a table was loaded."""
    ann = people.arrive(desk, "ann", "Ann")
    loader = threading.Thread(target=load, args=(desk, rows, "second"))
    took = []
    loader.start()
    while loader.is_alive():
        began = time.perf_counter()
        reviewing.next_item(desk, ann, Queue())
        took.append(time.perf_counter() - began)
        time.sleep(0.02)
    loader.join()
    return sorted(took)


def main() -> None:
    """Take everything in, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    given = parser.parse_args()
    with opened(given.database) as database:
        migrate(database)
        desk = open_desk(database, taxonomy=TAXONOMY, policy=Policy(), clock=now_ms)
        measure("an uploaded row", given.rows, lambda: load(desk, given.rows, "first"))
        measure("a result with its message", given.rows, lambda: take_in(desk, given.rows))
        took = waits(desk, given.rows)
        print(
            f"next message meanwhile: {len(took)} calls, median {1000 * took[len(took) // 2]:.0f} "
            f"ms, the longest {1000 * took[-1]:.0f} ms"
        )


if __name__ == "__main__":
    main()
