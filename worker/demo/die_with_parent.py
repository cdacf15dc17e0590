"""Replace this process by a command that the kernel kills when its parent dies (on Linux).

    python die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]

Run as a file of its own, not as a `preexec_fn`, which may deadlock in a program with threads. The
setting survives the exec. Where there is no prctl the command runs without that protection.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Arm the death signal and become the command; exit at once when the parent is gone already."""
    parent, command = int(argv[1]), argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the signal was armed
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point


if __name__ == "__main__":
    main(sys.argv)
