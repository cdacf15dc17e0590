"""A commit whose answer comes when nobody waits for it any more, on real Kafka.

librdkafka (2.16) aborts the process with an assertion if the commit was called again and that call
ended early (``tests/support/late_commit.py``). So the worker does not call it again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.support.topics import read_all


def test_a_commit_answered_late_is_unknown_and_ends_no_process(
    bootstrap_servers: str, topic: Callable[[str], str]
) -> None:
    """The commit had succeeded: the next producer finds it, and nothing is published twice."""
    names = [topic(name) for name in ("in", "out", "review", "dead")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.late_commit", bootstrap_servers, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-2:] == ["outcome: OutcomeUnknown", "committed: [2]"]
    assert sorted(map(str, read_all(bootstrap_servers, names[1]))) == ["b'first'", "b'second'"]
