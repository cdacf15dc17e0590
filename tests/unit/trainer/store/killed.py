"""Publish once for each line that a publication runs, and die or fail at that line.

Run as a program with a folder that holds the run ``new`` and ``old``: it forks a child for each
line, so that a kill is real. Prints the number of lines; a violation ends it with a traceback.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from trainer.errors import BadInput
from trainer.store.moves import LOCK_NAME, read_history, remove_leftovers
from trainer.store.publish import Plan, plan_publication, publish_adapter
from trainer.store.record import list_store
from worker.contract import AdapterRefused
from worker.contract.store import find_adapter, load_stored, read_pointer

WATCHED = (
    *(f"trainer/store/{name}.py" for name in ("publish", "moves", "record")),
    *(f"worker/contract/{name}.py" for name in ("store", "digest")),
)


def at_line(number: int, action: Callable[[], None]) -> Callable[..., Any]:
    """Return a trace function that acts before the watched line of that number."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            count += 1
            if count == number:
                action()
        return trace

    return trace


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def publish_in_a_child(plan: Plan, number: int, action: Callable[[], None]) -> int:
    """Return the child's exit code: -9 killed, 7 failed, 5 published all the same, 8 another
    error; 0 when there is no such line."""
    child = os.fork()
    if child == 0:
        code, reached = 8, []

        def act() -> None:
            reached.append(number)
            action()

        try:
            sys.settrace(at_line(number, act))
            publish_adapter(plan)
            code = 5 if reached else 0
        except (OSError, BadInput, AdapterRefused):  # reading tells a disk's error as a refusal
            code = 7
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def check(store: Path, source: Path, old: str, new: str) -> None:
    """Assert the promises after an interrupted publication, and after its repetition."""
    found = find_adapter(store).directory.name
    assert found in (old, new), found
    load_stored(store, found)
    if found == new:
        assert [entry.digest for entry in read_history(store)] == [old, new]
        assert [stored.gate for stored in list_store(store)[1]] == ["passed", "passed"]
    publish_adapter(plan_publication(source, store))
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.digest, pointer.previous) == (new, old)
    assert [entry.digest for entry in read_history(store)] == [old, new], "moved twice"
    assert [stored.gate for stored in list_store(store)[1]] == ["passed", "passed"]
    load_stored(store, new)
    remove_leftovers(store, time.time() + 7200)
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == [LOCK_NAME]


def main(folder: Path, stride: int) -> None:
    template, store = folder / "template", folder / "store"
    old = publish_adapter(plan_publication(folder / "old", template)).digest
    # Signing the lock is a courtesy: a disk too full for that stops the next step, not this one.
    for action, wanted in ((die, {-signal.SIGKILL}), (fail, {7, 5})):
        number = 0
        while True:
            number += stride
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(template, store)
            plan = plan_publication(folder / "new", store)
            code = publish_in_a_child(plan, number, action)
            if code == 0:
                break
            assert code in wanted, (number, code)
            check(store, folder / "new", old, plan.manifest.digest)
        print(number // stride - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
