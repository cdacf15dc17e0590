"""A desk's database with very many items, for tests/bench/desk.py."""

from __future__ import annotations

import itertools
import random

from desk.store import items, tables
from desk.store.database import Database, Tx
from desk.store.items import NewItem
from worker.contract.records import record_id
from worker.contract.scoring import ReviewReason
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
