"""Runs ``clerk-trainer`` in forks of one process, so that many runs share the time of importing.

Reads a line of JSON arguments, forks, prints the child's process id, and prints its exit code (or
the negative signal) when it has ended.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Serve until standard input ends."""
    import openai  # noqa: F401  once, and not in each child

    import trainer.teacher.label  # noqa: F401
    from trainer.cli.main import main as run_trainer

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 9
            try:
                sys.argv = ["clerk-trainer", *json.loads(line)]
                os.dup2(2, 1)  # standard output belongs to the protocol
                run_trainer()
                code = 0
            except SystemExit as done:
                code = done.code if isinstance(done.code, int) else 9
            finally:
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
