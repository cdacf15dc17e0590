"""The messages in a store are chosen explicitly; by default there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.trainer.store.conftest import (
    Clerk,
    MakeRun,
    write_evaluation,
)
from trainer.artifacts.evaluation import PROBES_NAME
from worker.contract import Probe, read_manifest
from worker.contract.store import find_adapter
from worker.contract.verify import ProbeFile, ProbeSource, attach_probes, probes_path, write_probes

pytestmark = pytest.mark.slow

WRITTEN = (Probe("where is my order, written for this", "delivery"),)
CUSTOMERS = (Probe("a customer's words", "billing"), Probe("another customer's words", "other"))


def give(run: Path, source: ProbeSource) -> None:
    """Write probes into a run as train and evaluate do."""
    digest = read_manifest(run / "adapter").digest
    if source == "validation":
        write_probes(probes_path(run / "adapter"), ProbeFile(digest, source, CUSTOMERS))
    else:
        write_probes(run / "evaluation" / PROBES_NAME, ProbeFile(digest, source, WRITTEN))


def texts_in(store: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in store.rglob("*") if path.is_file())


def probes_in(store: Path) -> tuple[Probe, ...]:
    directory = find_adapter(store).directory
    return attach_probes(read_manifest(directory), directory).probes


def test_by_default_no_message_of_a_customer_goes_into_a_store(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    run = make_run("one")
    give(run, "validation")
    code, out, _ = clerk("publish", run)
    assert code == 0
    assert "probes: off. The store has no messages" in out
    assert "words" not in texts_in(store)
    record = json.loads((store / f"{read_manifest(run / 'adapter').digest}.json").read_text())
    assert (record["probes"], record["probe_count"]) == ("off", 0)


def test_what_somebody_wrote_goes_along(clerk: Clerk, store: Path, make_run: MakeRun) -> None:
    run = make_run("one")
    give(run, "validation")
    give(run, "written")
    code, out, _ = clerk("publish", run)
    assert code == 0
    assert "probes: 1 messages written for this" in out
    assert probes_in(store) == WRITTEN
    [path] = store.glob("*.probes.json")
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_gid == store.stat().st_gid
    assert "customer" not in texts_in(store)


def test_messages_of_customers_go_when_they_are_asked_for_and_can_be_taken_back(
    clerk: Clerk, store: Path, make_run: MakeRun
) -> None:
    run = make_run("one")
    give(run, "validation")
    code, out, _ = clerk("publish", run, "--probes", "validation")
    assert code == 0
    assert "MESSAGES OF CUSTOMERS" in out
    assert probes_in(store) == CUSTOMERS
    [path] = store.glob("*.probes.json")
    assert path.stat().st_mode & 0o007 == 0
    assert "nothing to do" in clerk("publish", run)[1]
    assert probes_in(store) == CUSTOMERS
    assert clerk("publish", run, "--probes", "off")[0] == 0
    assert probes_in(store) == ()
    assert "words" not in texts_in(store)


def test_an_adapter_from_another_store_brings_what_was_written(
    clerk: Clerk, store: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("one")
    give(run, "written")
    clerk("publish", run)
    digest = read_manifest(run / "adapter").digest
    store.rename(tmp_path / "first")
    source = tmp_path / "first" / digest
    evaluation = tmp_path / "evaluation"
    write_evaluation(evaluation, read_manifest(source))
    wrong = clerk("publish", source, "--evaluation", evaluation, "--probes", "validation")
    assert wrong[0] == 2
    assert clerk("publish", source, "--evaluation", evaluation)[0] == 0
    assert probes_in(store) == WRITTEN


@pytest.mark.parametrize(
    ("choice", "said"), [("written", "evaluate --probes FILE"), ("validation", "probes_per_label")]
)
def test_a_choice_that_cannot_be_met_changes_nothing(
    clerk: Clerk, store: Path, make_run: MakeRun, choice: str, said: str
) -> None:
    code, _, err = clerk("publish", make_run("one"), "--probes", choice)
    assert code == 2
    assert said in err
    assert not store.exists()


def test_written_messages_of_another_adapter_are_refused(clerk: Clerk, make_run: MakeRun) -> None:
    run = make_run("one")
    path = run / "evaluation" / PROBES_NAME
    write_probes(path, ProbeFile("ab" * 32, "written", WRITTEN))
    code, _, err = clerk("publish", run)
    assert code == 2
    assert "another adapter" in err


def test_a_publisher_outside_the_stores_group_is_told_who_can_read(
    clerk: Clerk, store: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", denied)
    run = make_run("one")
    give(run, "written")
    code, out, _ = clerk("publish", run)
    assert code == 0
    [path] = store.glob("*.probes.json")
    assert f"its group {path.group()}, which must be the workers' group" in out
