"""Canaries: promoted or ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.store.conftest import Clerk
from trainer.store import moves
from trainer.store.moves import read_history
from worker.contract.store import find_adapter, read_canary, read_pointer

pytestmark = pytest.mark.slow


def digests(store: Path) -> tuple[str | None, str | None]:
    current, canary = read_pointer(store), read_canary(store)
    return current.digest if current else None, canary.digest if canary else None


@pytest.fixture
def two(clerk: Clerk, make_run: Any) -> tuple[str, str]:
    """Return the digests of the current adapter and of a canary with a share of 0.1."""
    assert clerk("publish", make_run("one"))[0] == 0
    code, out, _ = clerk("publish", make_run("two"), "--canary", 0.1, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["outcome"] == "canary"
    return told["current"]["digest"], told["digest"]


def test_a_canary_leaves_current_alone_and_its_share_can_be_changed(
    clerk: Clerk, store: Path, two: Any, tmp_path: Path
) -> None:
    assert digests(store) == two
    assert "is the canary for 0.1 of the keys" in clerk("list")[1]
    assert clerk("publish", tmp_path / "two", "--canary", 0.5)[0] == 0
    assert [entry.share for entry in read_history(store)] == [None, 0.1, 0.5]
    assert digests(store) == two
    assert clerk("publish", tmp_path / "two")[0] == 0, "published outright it is no canary any more"
    assert digests(store) == (two[1], None)


def test_forced_again_what_is_current_is_told_to_workers_anew(
    clerk: Clerk, store: Path, make_run: Any
) -> None:
    run = make_run("one")
    assert clerk("publish", run)[0] == 0
    assert clerk("publish", run, "--force", "--reason", "other labels now")[0] == 0
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.event == "force"


def test_promoted_it_is_current_and_a_rollback_goes_back(
    clerk: Clerk, store: Path, two: Any
) -> None:
    assert clerk("promote", "--reason", "three days")[0] == 0
    assert digests(store) == (two[1], None)
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.event, pointer.previous, pointer.reason) == ("promote", two[0], "three days")
    assert clerk("rollback", "--reason", "worse")[0] == 0
    assert digests(store) == (two[0], None)


def test_a_rollback_ends_the_trial_first(clerk: Clerk, store: Path, two: Any) -> None:
    before = read_pointer(store)
    assert clerk("rollback", "--reason", "complaints")[0] == 0
    assert digests(store) == (two[0], None)
    assert read_pointer(store) == before
    assert read_history(store)[-1].event == "end_canary"
    code, _, err = clerk("promote")
    assert code == 2
    assert "there is no canary" in err


def test_killed_between_the_two_a_promotion_completes(
    clerk: Clerk, store: Path, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(moves, "remove_canary", killed)
        with pytest.raises(KeyboardInterrupt):
            moves.promote_canary(store)
    assert digests(store) == (two[1], two[1])
    assert find_adapter(store).directory.name == two[1]
    assert clerk("promote")[0] == 0
    assert digests(store) == (two[1], None)
    assert [entry.event for entry in read_history(store)] == ["publish", "canary", "promote"]


def test_a_trial_needs_something_to_be_tried_against(
    clerk: Clerk, store: Path, make_run: Any
) -> None:
    run = make_run("one")
    code, _, err = clerk("publish", run, "--canary", 0.1)
    assert code == 2
    assert "publish without --canary first" in err
    assert clerk("publish", run, "--canary", 1.5)[0] == 2
    assert not store.exists()


def test_a_canary_that_fails_the_gate_is_not_put_on_trial(
    clerk: Clerk, store: Path, two: Any, make_run: Any
) -> None:
    assert clerk("publish", make_run("bad"), "--set", "accuracy=0.9999", "--canary", 0.1)[0] == 3
    assert digests(store) == two
