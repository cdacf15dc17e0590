"""The ledger: every request to a teacher, written before it is sent, and what was decided.

SQLite with WAL and ``synchronous=FULL``: a committed row survives a crash and a power cut. The
ledger's process holds an exclusive lock, which the system releases when the process ends, however
it ends.

The budget holds because a request is sent only after a row with the most that it can cost
(``bound``) is committed, and only while all costs and open bounds fit the budget. A request without
a known cost counts as its bound for ever: its process may have been killed while the server worked
on it. A server that charges more than a bound raises, from then on, all open and new bounds by the
same factor.

The ledger holds digests of messages and the teacher's raw answers. An answer that is not a label
may repeat words of a message, so the file is readable for its owner and group only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from trainer.artifacts.files import PRIVATE
from trainer.errors import BadInput
from trainer.teacher.prices import Price
from worker.contract.timestamps import rfc3339_now

_SCHEMA = """
CREATE TABLE asked (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE request (
    id INTEGER PRIMARY KEY,
    question TEXT NOT NULL,         -- SHA-256 of the message as it was sent
    vote INTEGER NOT NULL,          -- which order of the labels, from 0
    prompt_sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    input_price INTEGER NOT NULL,   -- picodollars per token
    output_price INTEGER NOT NULL,
    bound INTEGER NOT NULL,         -- the most that it can cost, in picodollars
    sent_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT,                   -- NULL: in flight when the process ended
    cost INTEGER,                   -- NULL: not known, counts as the bound
    seconds REAL,                   -- from sending to the whole answer
    prompt_tokens INTEGER,
    answer_tokens INTEGER,
    status INTEGER,                 -- HTTP status of a failure
    answered_by TEXT,               -- the model's name in the answer
    answer TEXT,                    -- as it came, its first characters
    label TEXT
) STRICT;
CREATE UNIQUE INDEX one_answer_a_vote ON request (question, vote)
    WHERE outcome IN ('label', 'none');
CREATE TABLE decision (
    question TEXT PRIMARY KEY,
    outcome TEXT NOT NULL,          -- label, or why a person must decide
    label TEXT,                     -- the label, or the one with most votes
    votes INTEGER NOT NULL,         -- for that label
    asked INTEGER NOT NULL,
    decided_at TEXT NOT NULL
) STRICT;
"""
# "Clk2", in the header of the file: another program's database is refused, not written to.
_APPLICATION_ID = 0x436C6B32
_ANSWER_CHARS = 500

Outcome = Literal["label", "none", "invented", "refused", "rejected", "failed"]
"""How a request ended: with a label; "none of the labels"; with something else; the model refused;
the server refused this message; no answer."""

ANSWERS = ("label", "none", "invented", "refused")
"""Outcomes that say what the teacher thinks of a message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One outcome in ``ANSWERS``."""

    outcome: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a teacher's answers say about a message.

    ``outcome`` is ``label``, or the reason for asking a person. ``label`` has the most votes, if
    any has: ``votes`` of the ``asked``.
    """

    outcome: str
    label: str | None
    votes: int
    asked: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended. A ``cost`` of None is not known and counts as the bound; ``seconds`` is
    the time from sending to the whole answer."""

    outcome: Outcome
    cost: int | None
    seconds: float | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    status: int | None = None
    answered_by: str | None = None
    answer: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What the last answer about a message took: picodollars, seconds, and the server's tokens;
    None where the server did not say."""

    cost: int | None
    seconds: float | None
    prompt_tokens: int | None
    answer_tokens: int | None


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over a ledger, in picodollars. ``known`` is what answers cost by the server's own count
    of tokens; ``unknown`` is the bound of requests without one."""

    known: int
    unknown: int
    requests: int
    answered: int
    unanswered: int
    invented: int
    overruns: int
    prompt_tokens: int
    answer_tokens: int

    @property
    def total(self) -> int:
        """What counts as spent."""
        return self.known + self.unknown


def so_far(
    path: Path, asked: Mapping[str, str], budget: int | None
) -> tuple[dict[str, Decision], int]:
    """Return question -> decision of earlier runs, and what counts as spent; nothing is created.
    Raises BadInput as ``Ledger`` does."""
    if not path.exists():
        return {}, 0
    ledger = Ledger(path, asked, budget)
    try:
        return ledger.decisions(), ledger.spent().total
    finally:
        ledger.close()


class Ledger:
    """An open ledger. One process at a time; every method commits before it returns, and raises
    BadInput if the disk is full."""

    def __init__(self, path: Path, asked: Mapping[str, str], budget: int | None) -> None:
        """Open or make the ledger at ``path``.

        ``asked`` describes the question (model, prompt, taxonomy, ...); ``budget`` is in
        picodollars over the ledger's whole life, None for no limit. Raises BadInput if another
        process has the ledger, or if it is about another question.
        """
        self.path = path
        self._budget = budget
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._prepare(asked)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if "locked" in str(error):
                raise BadInput(
                    f"{path}: another process is using it: wait until it ends, or stop it"
                ) from None
            raise BadInput(f"{path}: is not a ledger of clerk-trainer label ({error})") from None
        except BaseException:
            self._db.close()
            raise
        row = self._db.execute(
            "SELECT ifnull(sum(cost), 0), ifnull(sum(bound) FILTER (WHERE cost IS NULL), 0)"
            " FROM request"
        ).fetchone()
        self._known, self._open = row
        self._worst = 1000  # in thousandths, so that all amounts stay whole numbers
        for cost, bound in self._db.execute("SELECT cost, bound FROM request WHERE cost > bound"):
            self._note_overrun(cost, bound)

    def close(self) -> None:
        """Release the lock."""
        self._db.close()

    def reserve(
        self, question: str, vote: int, *, prompt_sha256: str, model: str, price: Price, bound: int
    ) -> int | None:
        """Write down a request that may now be sent, and return its number; None if the budget
        leaves no room for its ``bound`` (picodollars)."""
        after = self._known + self._raised(self._open + bound)
        if self._budget is not None and after > self._budget:
            return None
        row = (question, vote, prompt_sha256, model, price.input, price.output, bound)
        with self._transaction():
            done = self._db.execute(
                "INSERT INTO request (question, vote, prompt_sha256, model, input_price,"
                " output_price, bound, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, rfc3339_now()),
            )
        self._open += bound
        assert done.lastrowid is not None
        return done.lastrowid

    def end(self, request: int, ended: Ended, decision: Decision | None = None) -> None:
        """Write down how a request ended and, in the same transaction, what is decided about its
        message. A message is decided once: a second decision raises sqlite3.IntegrityError."""
        with self._transaction():
            answer = None if ended.answer is None else ended.answer[:_ANSWER_CHARS]
            now = {"id": request, "ended_at": rfc3339_now()}
            question, bound = self._db.execute(
                "UPDATE request SET ended_at = :ended_at, outcome = :outcome, cost = :cost,"
                " seconds = :seconds, prompt_tokens = :prompt_tokens,"
                " answer_tokens = :answer_tokens, status = :status, answered_by = :answered_by,"
                " answer = :answer, label = :label"
                " WHERE id = :id AND outcome IS NULL RETURNING question, bound",
                asdict(ended) | now | {"answer": answer},
            ).fetchone()
            if decision is not None:
                self._db.execute(
                    "INSERT INTO decision (question, outcome, label, votes, asked, decided_at)"
                    " VALUES (:question, :outcome, :label, :votes, :asked, :ended_at)",
                    asdict(decision) | now | {"question": question},
                )
        if ended.cost is not None:
            self._open -= bound
            self._known += ended.cost
            self._note_overrun(ended.cost, bound)

    def answers(self) -> dict[str, list[Answer]]:
        """Return question -> its answers so far, in order, for all that are not decided."""
        found: dict[str, list[Answer]] = {}
        marks = ", ".join("?" * len(ANSWERS))
        for question, outcome, label in self._db.execute(
            "SELECT question, outcome, label FROM request"  # noqa: S608 - only question marks
            f" WHERE outcome IN ({marks})"
            " AND question NOT IN (SELECT question FROM decision) ORDER BY id",
            ANSWERS,
        ):
            found.setdefault(question, []).append(Answer(outcome, label))
        return found

    def decisions(self) -> dict[str, Decision]:
        """Return question -> decision."""
        rows = self._db.execute("SELECT question, outcome, label, votes, asked FROM decision")
        return {question: Decision(*rest) for question, *rest in rows}

    def answered(self) -> dict[str, Answered]:
        """Return question -> what its last answer took, for all that have one."""
        marks = ", ".join("?" * len(ANSWERS))
        rows = self._db.execute(
            "SELECT question, cost, seconds, prompt_tokens, answer_tokens FROM request"  # noqa: S608
            f" WHERE outcome IN ({marks}) ORDER BY id",
            ANSWERS,
        )
        return {question: Answered(*rest) for question, *rest in rows}

    def spent(self) -> Spent:
        """Return the sums over all runs."""
        row: Sequence[int] = self._db.execute(
            "SELECT count(*), count(*) FILTER (WHERE outcome IN ('label', 'none')),"
            " count(*) FILTER (WHERE outcome IS NULL OR outcome = 'failed'),"
            " count(*) FILTER (WHERE outcome = 'invented'), count(*) FILTER (WHERE cost > bound),"
            " ifnull(sum(prompt_tokens), 0), ifnull(sum(answer_tokens), 0) FROM request"
        ).fetchone()
        return Spent(self._known, self._raised(self._open), *row)

    def models(self) -> list[str]:
        """Return the names by which models answered."""
        rows = self._db.execute(
            "SELECT DISTINCT answered_by FROM request WHERE answered_by IS NOT NULL ORDER BY 1"
        )
        return [name for (name,) in rows]

    def _note_overrun(self, cost: int, bound: int) -> None:
        if bound:
            self._worst = max(self._worst, -(-1000 * cost // bound))

    def _raised(self, bounds: int) -> int:
        """Return bounds times the worst ratio of a cost to its bound, at least 1."""
        return -(-bounds * self._worst // 1000)

    def _prepare(self, asked: Mapping[str, str]) -> None:
        # Exclusive for the connection's life, so that a second process is refused at once.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            if application == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.executemany("INSERT INTO asked VALUES (?, ?)", asked.items())
            elif application != _APPLICATION_ID:
                raise BadInput(f"{self.path}: is not a ledger of clerk-trainer label")
            before = dict(self._db.execute("SELECT name, value FROM asked"))
        changed = [name for name in {**before, **asked} if before.get(name) != asked.get(name)]
        if changed:
            raise BadInput(
                f"{self.path}: was made with another {', '.join(changed)}, and labels of two kinds "
                "do not belong in one file: give the same options again, or another --out"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and "locked" not in str(error):
                raise BadInput(
                    f"{self.path}: cannot be written ({error}): make room, then run the same "
                    "command again"
                ) from None
            raise
