"""After a kill, a full disk or a second publisher, the old adapter still serves."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import output_of
from tests.unit.trainer.store.conftest import MakeRun
from trainer.errors import BadInput
from trainer.store import moves
from trainer.store.moves import LOCK_NAME, STALE_S, locked, read_history, remove_leftovers
from trainer.store.publish import plan_publication, publish_adapter
from worker.contract import load_adapter
from worker.contract.store import find_adapter, load_stored

pytestmark = pytest.mark.slow

LINES = 37  # with 1 every line is tried, which takes minutes


def leftovers(store: Path) -> list[str]:
    return [path.name for path in store.iterdir() if path.name.startswith(".")]


@pytest.mark.long  # a process for each line of the publisher's
def test_a_kill_or_a_full_disk_at_any_line_leaves_the_old_adapter_serving(
    tmp_path: Path, make_run: MakeRun
) -> None:
    """A real SIGKILL, then an ENOSPC, at lines throughout a publication: the store is sound with
    one of the adapters current, and the same command completes the publication."""
    for name in ("old", "new"):
        make_run(name, (), 250)
    program = str(Path(__file__).with_name("killed.py"))
    said = output_of(program, str(tmp_path), str(LINES), OPENBLAS_NUM_THREADS="1")
    tried = [int(count) for count in said.split()]
    assert len(tried) == 2
    assert min(tried) > 200 // LINES, "the lines were not reached"


@pytest.mark.parametrize("nth", [1, 5, 7, 12])
def test_a_full_disk_leaves_nothing_of_the_new_adapter_half_written(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """ENOSPC from the n-th fsync on."""
    store = tmp_path / "store"
    old = publish_adapter(plan_publication(make_run("old"), store))
    plan = plan_publication(make_run("new"), store)
    calls = 0
    real = os.fsync

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space") as caught:
            publish_adapter(plan)
    assert str(caught.value.filename).startswith(str(store))
    assert find_adapter(store).pointer == old
    assert leftovers(store) == [LOCK_NAME]
    for directory in (path for path in store.iterdir() if path.is_dir()):
        load_adapter(directory)  # whatever has a name is whole
    assert publish_adapter(plan_publication(tmp_path / "new", store)).digest == plan.manifest.digest
    assert len(read_history(store)) == 2


def test_a_second_publisher_is_told_who_holds_the_store(tmp_path: Path, make_run: MakeRun) -> None:
    store = tmp_path / "store"
    old = publish_adapter(plan_publication(make_run("old"), store))
    plan = plan_publication(make_run("new"), store)
    with (
        locked(store, "ann@desk", "2024-05-06T07:08:09Z"),
        pytest.raises(BadInput, match=rf"ann@desk \(process {os.getpid()}, since 2024.*again"),
    ):
        publish_adapter(plan)
    assert find_adapter(store).pointer == old
    assert publish_adapter(plan).digest == plan.manifest.digest  # the lock went with its holder


def test_a_publication_judged_against_another_adapter_is_refused(
    tmp_path: Path, make_run: MakeRun
) -> None:
    store = tmp_path / "store"
    plan = plan_publication(make_run("one"), store)
    other = publish_adapter(plan_publication(make_run("two"), store))
    with pytest.raises(BadInput, match=r"two \(.*has become current in the meantime"):
        publish_adapter(plan)
    assert find_adapter(store).pointer == other


def test_leftovers_of_the_dead_and_the_old_are_swept_and_no_others(tmp_path: Path) -> None:
    """A live process's temporary file stays for an hour; adapters, records and the lock stay for
    ever."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    digest = "ab" * 32
    own = tmp_path / moves._own_name(".incoming")
    names = {
        "dead": f".incoming.{dead.pid}.12345678.{host}",
        "elsewhere": f".incoming.{dead.pid}.12345678.not-{host}",
        "pointer": ".current.json.abcd1234",
        "record": f".{digest}.json.abcd1234",
    }
    for name in (names["dead"], names["elsewhere"], own.name, digest):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"x")
    for name in (names["pointer"], names["record"], LOCK_NAME, f"{digest}.json", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert remove_leftovers(tmp_path) == [tmp_path / names["dead"]]
    later = remove_leftovers(tmp_path, time.time() + STALE_S + 60)
    assert {path.name for path in later} == {own.name, *names.values()} - {names["dead"]}
    assert {path.name for path in tmp_path.iterdir()} == {
        digest,
        f"{digest}.json",
        LOCK_NAME,
        ".hidden",
    }


def test_a_damaged_copy_is_replaced_by_publishing_again(tmp_path: Path, make_run: MakeRun) -> None:
    store = tmp_path / "store"
    run = make_run("one")
    pointer = publish_adapter(plan_publication(run, store))
    weights = store / pointer.digest / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"rotten")
    assert publish_adapter(plan_publication(run, store)).digest == pointer.digest
    load_stored(store, pointer.digest)
    assert leftovers(store) == [LOCK_NAME]


def test_an_adapter_that_changes_while_it_is_copied_is_not_published(
    tmp_path: Path, make_run: MakeRun
) -> None:
    store, run = tmp_path / "store", make_run("one")
    plan = plan_publication(run, store)
    shutil.copytree(make_run("two") / "adapter", run / "adapter", dirs_exist_ok=True)
    with pytest.raises(Exception, match="changed while it was copied"):
        publish_adapter(plan)
    assert find_adapter(store).pointer is None
    assert leftovers(store) == [LOCK_NAME]
