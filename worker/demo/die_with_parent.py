"""Replace this process by a command that the kernel kills when its parent dies (on Linux).

    python die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]

It is a script rather than a `preexec_fn`, which may deadlock in a program with threads. The setting
survives the exec. Without prctl the command runs unprotected.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Request the death signal and become the command; exit if the parent is already gone."""
    parent, command = int(argv[1]), argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before prctl was called
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point


if __name__ == "__main__":
    main(sys.argv)
