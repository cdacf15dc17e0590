"""The ledger's arithmetic, its lock, and what it refuses."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import BadInput
from trainer.teacher.ledger import Decision, Ended, Ledger
from trainer.teacher.prices import DOLLAR, Price, dollars, find_price, parse_budget

ASKED = {"model": "m", "taxonomy": "t", "prompt": "p"}
PRICE = Price(150_000, 600_000, "a test")


def reserve(ledger: Ledger, question: str, bound: int, vote: int = 0) -> int | None:
    return ledger.reserve(question, vote, prompt_sha256="00", model="m", price=PRICE, bound=bound)


STEP = st.tuples(st.sampled_from(["send", "answer", "free", "lose", "kill"]), st.integers(0, 400))


@pytest.mark.slow
@settings(max_examples=40)
@given(budget=st.integers(1, 3_000), steps=st.lists(STEP, max_size=40))
def test_whatever_happens_what_was_served_fits_the_budget(
    budget: int, steps: list[tuple[str, int]]
) -> None:
    """A server charges at most a request's bound, whether or not its answer arrives; a process may
    be killed at any time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        ledger = Ledger(path, ASKED, budget)
        flying: dict[int, int] = {}
        served = 0
        for number, (what, amount) in enumerate(steps):
            if what == "send":
                if (request := reserve(ledger, f"q{number}", amount)) is not None:
                    flying[request] = amount
            elif what == "kill":
                served += sum(flying.values())
                flying.clear()
                ledger.close()
                ledger = Ledger(path, ASKED, budget)
            elif flying:
                request, bound = flying.popitem()
                cost = {"answer": min(amount, bound), "free": 0}.get(what)
                served += bound if cost is None else cost
                ledger.end(request, Ended("failed", cost))
            spent = ledger.spent()
            assert served <= spent.total <= budget
            assert spent.total == served + sum(flying.values())
        ledger.close()


@settings(max_examples=10)
@given(costs=st.lists(st.integers(0, 10**15), max_size=6))
def test_sums_are_exact_and_survive_a_new_start(costs: list[int]) -> None:
    """No float is involved: a thousandth of a cent is not lost among dollars."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        ledger = Ledger(path, ASKED, None)
        for number, cost in enumerate(costs):
            request = reserve(ledger, f"q{number}", cost + 1)
            assert request is not None
            ledger.end(request, Ended("failed", cost))
        before = ledger.spent()
        ledger.close()
        ledger = Ledger(path, ASKED, None)
        assert ledger.spent() == before
        assert before.total == sum(costs)
        ledger.close()


def test_a_server_that_charges_more_than_a_bound_raises_what_is_reserved(tmp_path: Path) -> None:
    """From then on, after a new start too, for requests in flight and new ones."""
    ledger = Ledger(tmp_path / "ledger", ASKED, 1_000)
    first, second = reserve(ledger, "a", 100), reserve(ledger, "b", 100)
    assert first is not None
    assert second is not None
    ledger.end(first, Ended("failed", 250))
    assert ledger.spent().total == 250 + 250
    assert ledger.spent().overruns == 1
    ledger.close()
    ledger = Ledger(tmp_path / "ledger", ASKED, 1_000)
    assert ledger.spent().total == 500
    assert reserve(ledger, "c", 201) is None
    assert reserve(ledger, "c", 200) is not None
    ledger.close()


def test_a_message_is_decided_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", ASKED, None)
    for label in ("refund", "payment"):
        request = reserve(ledger, "q", 10)
        assert request is not None
        ended = Ended("invented", 1)
        if label == "refund":
            ledger.end(request, ended, Decision("label", label, 2, 2))
        else:
            with pytest.raises(sqlite3.IntegrityError):
                ledger.end(request, ended, Decision("label", label, 2, 2))
    assert ledger.decisions() == {"q": Decision("label", "refund", 2, 2)}
    assert ledger.spent().known == 1
    ledger.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Two processes would each think that the budget is theirs."""
    ledger = Ledger(tmp_path / "ledger", ASKED, None)
    with pytest.raises(BadInput, match="another process"):
        Ledger(tmp_path / "ledger", ASKED, None)
    ledger.close()
    Ledger(tmp_path / "ledger", ASKED, None).close()


@pytest.mark.parametrize("name", ASKED)
def test_a_changed_question_is_refused_by_name(tmp_path: Path, name: str) -> None:
    Ledger(tmp_path / "ledger", ASKED, None).close()
    with pytest.raises(BadInput, match=f"another {name},.* another --out"):
        Ledger(tmp_path / "ledger", {**ASKED, name: "other"}, None)


def test_another_file_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a letter to the shop, which is not a database at all")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE letters (text)")
    other.close()
    for name in ("text", "other"):
        with pytest.raises(BadInput, match="is not a ledger"):
            Ledger(tmp_path / name, ASKED, None)


def test_a_full_disk_is_one_line_and_nothing_is_sent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", ASKED, None)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BadInput, match=r"is full.*: make room, then run the same command"):
        assert [reserve(ledger, f"q{number}", 1) for number in range(1_000)]
    spent = ledger.spent()
    assert spent.total == spent.requests
    ledger.close()


def test_its_owner_and_group_read_it_and_nobody_else(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", ASKED, None)
    reserve(ledger, "q", 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o640}, modes
    ledger.close()


def test_it_is_written_to_disk_before_a_request_leaves(tmp_path: Path) -> None:
    """``FULL`` in a write-ahead log: each commit is synced."""
    ledger = Ledger(tmp_path / "ledger", ASKED, None)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    ledger.close()


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "$0.0000"), (1, "$0.0001"), (DOLLAR, "$1.0000"), (1234 * DOLLAR + 1, "$1,234.0001")],
)
def test_amounts_are_rounded_up(amount: int, words: str) -> None:
    assert dollars(amount) == words


def test_a_budget_is_rounded_down_and_a_price_up() -> None:
    assert parse_budget("5.00") == 5 * DOLLAR
    assert parse_budget("0.0000000000019") == 1
    price = find_price("m", "http://h/v1", "0.15", "0.0000001", prompt_tokens=1)
    assert (price.input, price.output) == (150_000, 1)
    assert price.cost(1_000_000, 0) == 15 * DOLLAR // 100


@pytest.mark.parametrize("text", ["five", "NaN", "inf", "-1", "0", "1e9"])
def test_a_budget_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--budget"):
        parse_budget(text)


def test_one_price_alone_is_refused() -> None:
    with pytest.raises(BadInput, match="give both"):
        find_price("m", "http://h/v1", "0.15", None, prompt_tokens=1)
