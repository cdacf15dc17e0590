"""Publishing, rolling back and listing, as the commands do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.keys import write_key
from tests.unit.trainer.store.conftest import Clerk, MakeRun
from trainer.store.moves import Entry, append_entry, path_to, read_history
from worker.common.signatures import check_signature
from worker.contract.digest import sha256_bytes
from worker.contract.store import HISTORY_NAME, find_adapter, read_pointer

pytestmark = pytest.mark.slow

HOLDOUT_2 = {"dataset": {"holdout_sha256": "b2" * 32}}


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_bytes(path.read_bytes())
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def test_a_good_run_becomes_current_with_its_record(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    run = make_run("one")
    code, out, err = clerk("publish", run)
    assert (code, err) == (0, "")
    assert out.count("pass") >= 9
    assert "is current in" in out
    found = find_adapter(store)
    assert found.pointer is not None
    manifest = found.directory / "manifest.json"
    assert manifest.read_bytes() == (run / "adapter" / "manifest.json").read_bytes()
    record = json.loads((store / f"{found.pointer.digest}.json").read_text())
    assert record["evaluation"]["dataset"]["holdout_sha256"] == "a1" * 32
    assert record["gate"]["passed"] is True
    assert record["gate"]["rules"]["accuracy"] == 0.9
    assert record["published_by"] == found.pointer.by
    card = (store / f"{found.pointer.digest}.README.md").read_text()
    assert "| accuracy | 96.7% (" in card
    assert "a customer's words" not in card
    assert "words" not in "".join(path.read_text() for path in store.glob("*.json*"))
    [entry] = read_history(store)
    assert (entry.event, entry.previous, entry.at) == ("publish", None, found.pointer.since)
    before = contents(store)
    assert json.loads(clerk("publish", run, "--json")[1])["outcome"] == "already_current"
    assert contents(store) == before


def test_a_publication_is_signed_with_what_led_to_it(
    clerk: Clerk, store: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    code, _, err = clerk("publish", make_run("one"), "--sign-key", file)
    assert (code, store.exists()) == (2, False)
    assert f"--sign-key {file}: cannot be read: No such file or directory" in err
    key = write_key(file)
    assert clerk("publish", tmp_path / "one", "--sign-key", file)[0] == 0
    found = find_adapter(store)
    assert found.pointer is not None
    digest = found.pointer.digest
    statement = check_signature(found.directory, digest, [key.public_key()])
    assert statement["gate"] == "passed"
    assert statement["by"] == found.pointer.by
    bad = make_run("bad", range(0, 300, 18))
    reason = ("--force", "--reason", "of the test")
    assert clerk("publish", bad, "--sign-key", file, *reason)[0] == 0
    forced = find_adapter(store)
    assert forced.pointer is not None
    statement = check_signature(forced.directory, forced.pointer.digest, [key.public_key()])
    assert statement["gate"] == "forced"


def test_a_regression_ends_with_code_3_and_nothing_changed(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    clerk("publish", make_run("good", range(0, 300, 60)))
    worse = make_run("worse", range(0, 300, 18))
    before = contents(store)
    code, out, err = clerk("publish", worse)
    assert code == 3
    assert "FAIL" in out
    assert "worse does not pass the gate (against the current adapter)" in err
    assert contents(store) == before


def test_a_first_refused_adapter_leaves_no_store(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    assert clerk("publish", make_run("bad", range(0, 300, 3)))[0] == 3
    assert not store.exists()
    code, out, _ = clerk("publish", make_run("good"), "--dry-run")
    assert code == 0
    assert "would become current" in out
    assert not store.exists()


def test_force_needs_a_reason_and_records_it_everywhere(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    bad = make_run("bad", range(0, 300, 3))
    code, _, err = clerk("publish", bad, "--force")
    assert (code, store.exists()) == (2, False)
    assert "--reason" in err
    code, out, _ = clerk("publish", bad, "--force", "--reason", "the old one is worse")
    assert code == 0
    assert "by force" in out
    pointer = read_pointer(store)
    assert pointer is not None
    record = json.loads((store / f"{pointer.digest}.json").read_text())
    assert pointer.reason == record["reason"] == "the old one is worse"
    assert record["gate"]["forced"] is True
    assert record["gate"]["passed"] is False
    [entry] = read_history(store)
    assert (entry.event, entry.reason) == ("force", "the old one is worse")


def test_another_holdout_names_the_command_that_makes_it_comparable(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    old = make_run("old")
    clerk("publish", old)
    digest = find_adapter(store).directory.name
    new = make_run("new", range(0, 300, 60), **HOLDOUT_2)
    code, _, err = clerk("publish", new)
    assert code == 3
    assert f"clerk-trainer evaluate {store / digest}" in err
    assert "--current-evaluation" in err
    assert clerk("publish", new, "--allow-unpaired", "--dry-run")[0] == 0

    again = make_run("old2", **HOLDOUT_2, adapter={"digest": digest}) / "evaluation"
    wrong = make_run("old3", **HOLDOUT_2) / "evaluation"
    code, _, err = clerk("publish", new, "--current-evaluation", wrong)
    assert code == 2
    assert f"the first of its series are {digest[:12]}…: evaluate those" in err
    code, out, _ = clerk("publish", new, "--current-evaluation", again, "--json")
    assert code == 0
    comparison = json.loads(out)["gate"]["comparison"]
    assert (comparison["holdout_sha256"], comparison["current_digest"]) == ("b2" * 32, digest)


def test_without_an_evaluation_there_is_no_publication(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    bare = make_run("bare") / "adapter"
    code, _, err = clerk("publish", bare)
    assert code == 2
    assert "clerk-trainer evaluate" in err
    assert clerk("publish", bare, "--dry-run", "--evaluation", bare.parent / "evaluation")[0] == 0
    assert clerk("publish", bare, "--force", "--reason", "trained elsewhere")[0] == 0
    [stored] = json.loads(clerk("list", "--json")[1])["adapters"]
    assert (stored["accuracy"], stored["gate"]) == (None, "forced")
    code, _, err = clerk("publish", make_run("next"))
    assert code == 3
    assert "against the current adapter" in err


def test_an_evaluation_of_another_adapter_is_not_taken_down(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    run = make_run("one", adapter={"digest": "ff" * 32})
    assert clerk("publish", run)[0] == 3
    assert clerk("publish", run, "--force", "--reason", "x")[0] == 0
    [stored] = json.loads(clerk("list", "--json")[1])["adapters"]
    assert stored["accuracy"] is None
    assert not list(store.glob("*.predictions.jsonl"))


def test_a_damaged_record_does_not_lock_the_store_up(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    """The comparison is then impossible, and --allow-unpaired lets it pass."""
    clerk("publish", make_run("one"))
    digest = find_adapter(store).directory.name
    predictions = store / f"{digest}.predictions.jsonl"
    predictions.write_text(predictions.read_text().replace("m5", "m5000"))
    two = make_run("two")
    assert clerk("publish", two)[0] == 3
    assert clerk("publish", two, "--allow-unpaired")[0] == 0


def test_an_altered_adapter_is_never_published(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    run = make_run("one")
    (run / "adapter" / "adapter_config.json").write_bytes(b"[]")
    code, _, err = clerk("publish", run, "--force", "--reason", "x")
    assert code == 2
    assert "adapter_config.json" in err
    assert not store.exists()


def test_rollback_goes_back_one_at_a_time_and_is_recorded(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    digests = []
    for name in ("one", "two", "three"):
        clerk("publish", make_run(name))
        digests.append(find_adapter(store).directory.name)
    for wanted in (digests[1], digests[0]):
        code, out, _ = clerk("rollback", "--reason", "wrong desk", "--json")
        assert code == 0
        assert json.loads(out)["current"]["digest"] == wanted
        assert find_adapter(store).directory.name == wanted
    code, _, err = clerk("rollback", "--reason", "further")
    assert code == 2
    assert "nothing before" in err
    assert clerk("rollback", "--reason", "fixed", "--to", digests[2][:10])[0] == 0
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.digest, pointer.previous, pointer.reason) == (
        digests[2],
        digests[0],
        "fixed",
    )
    assert [entry.event for entry in read_history(store)] == ["publish"] * 3 + ["rollback"] * 3


def test_rollback_refuses_what_it_cannot_serve(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    assert clerk("rollback", "--reason", "x")[0] == 2
    clerk("publish", make_run("one"))
    first = find_adapter(store).directory
    clerk("publish", make_run("two"))
    before = read_pointer(store)
    (first / "adapter_config.json").chmod(0o644)
    (first / "adapter_config.json").write_bytes(b"[]")
    for arguments, problem in (
        (["--reason", "x"], "adapter_config.json"),
        (["--reason", " "], "--reason"),
        (["--reason", "x", "--to", "nope"], "matches no adapter"),
    ):
        code, _, err = clerk("rollback", *arguments)
        assert code == 2
        assert problem in err
    assert read_pointer(store) == before


def test_the_list_shows_figures_and_who_is_current(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    code, _, err = clerk("list")
    assert code == 2
    assert "no such store" in err
    clerk("publish", make_run("one"))
    first = find_adapter(store).directory.name
    clerk("publish", make_run("two", range(0, 300, 50)))
    clerk("rollback", "--reason", "noise [bold]")
    unfinished = find_adapter(make_run("three") / "adapter").directory
    digest = "cd" * 32
    unfinished.rename(store / digest)
    code, out, _ = clerk("list")
    assert code == 0
    for text in ("96.7% (94.0% to 98.2%)", "98.0%", "unfinished", "noise [bold]"):
        assert text in out
    result = json.loads(clerk("list", "--json")[1])
    assert result["current"]["digest"] == first
    current = [adapter["name"] for adapter in result["adapters"] if adapter["current_since"]]
    assert current == ["one"]
    assert {adapter["name"] for adapter in result["adapters"]} == {"one", "two", "three"}


def entry(event: Any, digest: str, previous: str | None) -> Entry:
    return Entry(event, "2024-05-06T07:08:09Z", "ann@desk", digest, digest, previous, None)


@pytest.mark.parametrize(
    ("moves", "current", "way"),
    [
        ("", "a", "a"),
        ("publish a -; publish b a", "b", "a b"),
        ("publish a -; publish b a; rollback a b", "a", "a"),
        ("publish a -; publish b a; publish a b; rollback b a", "b", "a b"),
        ("publish a -; publish b a; publish b b", "b", "a b"),  # a damaged b, published again
        ("publish a -; publish b a; publish c a", "c", "a c"),  # the move to b never happened
        ("publish a -; publish b a", "a", "a"),  # nor here
        ("publish a -; publish b a; rollback a b; publish c a", "c", "a c"),
        ("publish a -; publish b a; publish c b; rollback a c", "a", "a"),
        ("publish a -; rollback x a", "x", "a x"),
        ("publish b z", "b", "z b"),  # an older part of the history is gone
    ],
)
def test_the_way_back_is_what_was_current_before(moves: str, current: str, way: str) -> None:
    history = []
    for move in filter(None, moves.split("; ")):
        event, digest, previous = move.split()
        history.append(entry(event, digest, None if previous == "-" else previous))
    assert " ".join(path_to(history, current)) == way


def test_a_line_that_a_kill_cut_is_no_entry(tmp_path: Path) -> None:
    first = append_entry(tmp_path, entry("publish", "a", None))
    with (tmp_path / HISTORY_NAME).open("a") as file:
        file.write('{"event": "publi')
    assert read_history(tmp_path) == (first,)
    second = append_entry(tmp_path, entry("publish", "b", "a"))
    assert read_history(tmp_path) == (first, second)
    assert append_entry(tmp_path, entry("publish", "b", "a")) == second
    assert len((tmp_path / HISTORY_NAME).read_text().splitlines()) == 2
