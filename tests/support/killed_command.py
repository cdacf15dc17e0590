"""Runs a command to its end through a real SIGKILL before each file that it renames into place.

The argument is a JSON file: the folders to watch and the command's arguments. Each attempt is
killed at the first path where no earlier attempt was killed, and the command starts again. Prints
the paths, one a line; the last attempt must exit with code 0.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.trainer_world import call

MOST = 150
# Folders under construction and unfinished files have random names.
_RANDOM = re.compile(r"/\.([^/]+?)\.[A-Za-z0-9_]{8}(?=/|$)")


def main(given: Path) -> None:
    """Kill and restart until there is nothing left to kill at."""
    watched, arguments = json.loads(given.read_text())
    seen: set[str] = set()
    while True:
        code, place = attempt(arguments, watched, seen)
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        assert place
        assert place not in seen, place
        seen.add(place)
        assert len(seen) < MOST
        print(place, flush=True)


def attempt(
    arguments: Sequence[str], watched: Sequence[str], seen: set[str]
) -> tuple[int, str | None]:
    """The exit code of one attempt in a child, and where it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 8
        try:
            sys.addaudithook(_killer(writer, watched, seen))
            code, _, error = call(*arguments)
            if code:
                print(error, file=sys.stderr)
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        place = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), place or None


def _killer(writer: int, watched: Sequence[str], seen: set[str]) -> Any:
    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event != "os.rename":
            return
        target = str(Path(given[1]).absolute())
        if not target.startswith(tuple(watched)):
            return
        place = _RANDOM.sub(r"/\1", target)
        if place not in seen:
            os.write(writer, place.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


if __name__ == "__main__":
    import trainer.propose.steps  # noqa: F401  once, and not in each child

    main(Path(sys.argv[1]))
