"""The pages of batches, advice and proposals, and bringing files by one."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
import zipfile

import pytest

from desk.service import circle, people
from desk.service.context import Policy
from desk.store.database import Database
from tests.support.desk_browser import NewBrowser, open_browser, send
from tests.support.desk_files import make_advice, make_proposal, make_task, task_file
from tests.support.desk_world import DeskWorld
from worker.contract.codec import encode
from worker.contract.exchange import Neighbour

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u200b"


def test_a_large_json_value_is_refused_unparsed(browser: NewBrowser) -> None:
    """Parsed JSON takes thirty times the memory of its text: 56 MB took 1.7 GB."""
    ada = browser("ada", "owner")
    csrf = ada.csrf()
    one = b"[" + b",".join([b'{"a":1}'] * 2_000_000) + b"]"
    late = task_file([make_task("A")]).encode() + b'{"schema":"tasks/1","x":' + one + b"}"
    for content, says in ((one, "must be tasks"), (late, "a line has more than 8 MB")):
        tracemalloc.start()
        sent = send(ada, content, csrf=csrf)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sent.status_code == 409
        assert says in sent.text
        assert peak < 10 * len(content)  # the test's client and the form's parser hold copies


def test_an_owner_exports_decisions(world: DeskWorld, browser: NewBrowser) -> None:
    """The files of ``clerk-desk export``; the log says who."""
    item = world.add("Where is my parcel?", message_id="=T-1")
    ada = browser("ada", "owner")
    assert ada.person is not None
    world.decide(ada.person, "refund", item.id, note="-1", request_id="r")
    assert 'action="/export"' in ada.get("/export").text
    sent = ada.post("/export", {"project": "inbox", "ids": "message"})
    assert sent.headers["content-type"] == "application/zip"
    assert re.fullmatch(
        r'attachment; filename="decided-[0-9-]{10}.zip"', sent.headers["content-disposition"]
    )
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        assert set(archive.namelist()) == {"messages.jsonl", "decisions.csv"}
        assert json.loads(archive.read("messages.jsonl"))["message"] == "Where is my parcel?"
        table = archive.read("decisions.csv").decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert row["new_label"] == "refund"
    assert (row["id"], row["note"]) == ("'=T-1", "'-1")  # no formula
    entry = people.audit_log(world.desk, ada.person).entries[0]
    assert (entry["action"], entry["pseudonym"]) == ("decisions.exported", ada.person.pseudonym)


def test_who_sees_masked_texts_exports_none(database: Database) -> None:
    world = DeskWorld(database, Policy(masked_roles=frozenset({"owner"})))
    sent = open_browser(world, "ada", "owner").post("/export", {"project": "inbox"})
    assert sent.status_code == 409
    assert "masked" in sent.text


def test_a_table_of_messages_becomes_a_batch(world: DeskWorld, browser: NewBrowser) -> None:
    """Rows with a label ask whether it is right, the others ask for one."""
    ada = browser("ada", "owner")
    rows = 'ID;Text;label\n7;"Where is my\nparcel?";delivery\n8;Money;\n9;Money;\n;;\n'
    sent = send(ada, f"\ufeff{rows}", "from the helpdesk.csv")
    assert sent.headers["location"] == "/", sent.text
    assert [
        (each.name, each.purpose, each.progress.tasks) for each in circle.all_progress(world.desk)
    ] == [("from the helpdesk", "learn", 1), ("from the helpdesk", "check", 1)]


def test_a_workbook_becomes_a_batch(world: DeskWorld, browser: NewBrowser) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (("message", "message_id"), ("Where is it?", 7), (None, None), ("Money back", 8.0)):
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    ada = browser("ada", "owner")
    assert send(ada, file.getvalue(), "march.xlsx").headers["location"] == "/"
    (batch,) = circle.all_progress(world.desk)
    assert (batch.name, batch.progress.tasks) == ("march", 2)
    assert "id <bdi>7<" in ada.open(f"/review?batch={batch.id}").text
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("xl/worksheets/sheet1.xml", b"0" * 101_000_000)
    refused = send(ada, packed.getvalue(), "march.xlsx")
    assert (refused.status_code, "unpacked it has 101 MB" in refused.text) == (409, True)


UNKNOWN = task_file([make_task("A", suggested="unheard of")])
ROWS = 'text,label\nHello,refunds\n,refund\na,b,c\nHello,x\n"a"b,refund\n'
PROBLEMS = (
    "t.csv: 1 row with a quote that is not closed or not doubled (line 6): close it, or double "
    "quotes within a cell; 1 row with another number of cells than the header has (line 4): put "
    "cells that hold the delimiter in quotes; line 3: the text is empty; lines 2, 5: the label is "
    "not in this desk"
)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "id,body\n1,Hello\n", "the first row names no column text"),
        ("t.csv", "text\n", "there is no message in it"),
        ("t.csv", b"%PDF-1.4\n", "is a PDF"),
        ("t.csv", ROWS, PROBLEMS),
        ("tasks.jsonl", "", "Choose a file first"),
        ("tasks.jsonl", b"\xff\xfe", "not UTF-8 from byte 0 on"),
        ("tasks.jsonl", UNKNOWN, "tasks.jsonl:1: a label is none of"),
    ],
)
def test_a_wrong_file_is_refused_in_words(
    world: DeskWorld, browser: NewBrowser, name: str, content: bytes | str, says: str
) -> None:
    sent = send(browser("ada", "owner"), content, name)
    assert sent.status_code == 409
    assert says in sent.text
    assert "Hello" not in sent.text
    assert circle.all_progress(world.desk) == []


def test_only_whom_it_is_for_is_read_at_all(
    browser: NewBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large form of others is turned away unread; an owner's has its bound and its token."""
    monkeypatch.setattr("desk.web.visit.MAX_UPLOAD_BYTES", 5_000)
    large = b"x" * 100_000
    assert send(browser("bo", "reviewer"), large).status_code == 403
    visitor = browser()
    assert visitor.client.post("/load", files={"file": ("a", large)}).status_code == 401
    ada = browser("ada", "owner")
    assert send(ada, large).status_code == 413
    assert send(ada, task_file([make_task("A")]), csrf="wrong").status_code == 403
    broken = ada.client.post(
        "/load", content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in {400, 403}


def test_the_audit_names_no_label(world: DeskWorld, browser: NewBrowser) -> None:
    """But those of the taxonomy, which are the same for every message: the pages of two tasks
    differ in nothing that a model or the hold-out could have said."""
    tasks = [make_task(text, "audit") for text in ("Message one", "Message two")]
    circle.load_task_file(world.desk, task_file(tasks), "t")
    ada = browser("ada")
    page = ada.open("/review?batch=1").text
    sidebar = page[page.index('<aside class="sidebar">') : page.index("</aside>")]
    for name in world.desk.taxonomy.names:
        assert name not in sidebar
    assert 'class="machine"' not in page
    assert "<small>in the dataset" not in page
    assert "Audit of the hold-out" in sidebar


def test_texts_of_files_are_shown_as_text(world: DeskWorld, browser: NewBrowser) -> None:
    """In every place where a file of the trainer puts words."""
    near = Neighbour(HOSTILE, "delivery")
    long = "y" * 100_000
    hostile = [
        make_task(HOSTILE, batch=HOSTILE, neighbours=(near,), message_id=HOSTILE,
                  reasons=(HOSTILE,), guideline=HOSTILE),
        make_task(long, batch=HOSTILE),
    ]  # fmt: skip
    circle.load_task_file(world.desk, task_file(hostile), "t")
    advice = make_advice(HOSTILE, long)
    words = {"title": HOSTILE, "evidence": HOSTILE, "advice": HOSTILE, "gain": HOSTILE}
    finding = encode(advice.findings[0]) | words | {"figures": {HOSTILE: 1.0}, "cost": HOSTILE}
    circle.load_advice(world.desk, json.dumps(encode(advice) | {"findings": [finding]}), "a")
    proposal = encode(make_proposal()) | {
        "headline": HOSTILE, "reasons_for": [HOSTILE], "reasons_against": [HOSTILE],
        "dataset_name": HOSTILE, "changes": {HOSTILE: 1},
    }  # fmt: skip
    proposal["figures"][0]["name"] = proposal["gate"][0]["name"] = HOSTILE
    circle.load_proposal(world.desk, json.dumps(proposal), "p")
    ada = browser("ada", "owner")
    for path in (
        "/", "/review?batch=1", "/advice", "/advice/messages?advice=1&finding=1", "/proposals",
    ):  # fmt: skip
        page = ada.open(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text, path
        assert "<img" not in page.text, path
        assert "\u202e" not in page.text, path
        assert "&lt;script&gt;alert" in page.text, path
