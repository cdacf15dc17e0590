"""``python -m desk.leash MODULE WORDS``: run a module, and end it when its parent has ended.

The parent gives it a pipe as standard input and writes nothing to it. The system closes the pipe
when the parent ends, also by kill -9. Linux can signal a child instead (PR_SET_PDEATHSIG); macOS
cannot, and the number of a parent that is gone may soon be another process's.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def main() -> None:
    """Run the module in this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    # Not SystemExit, which ends this thread alone.
    os._exit(1)


if __name__ == "__main__":
    main()
