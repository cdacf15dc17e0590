"""A small disk that can be filled up: a tmpfs of its own. Needs root, on Linux."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

_FILLER = "filler"
_STEP_BYTES = 4 * 1024 * 1024


def can_mount() -> bool:
    """Whether this process may mount a tmpfs, as far as can be told without doing it."""
    return os.name == "posix" and os.geteuid() == 0


class SmallDisk:
    """A mounted tmpfs of so many megabytes."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip

    def fill(self) -> int:
        """Leave no byte free; return how many were taken."""
        step, size = _STEP_BYTES, 0
        with (self.folder / _FILLER).open("wb") as file:
            while step:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        return size

    def is_full(self) -> bool:
        """Whether a file of one page can not be written."""
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            probe.unlink(missing_ok=True)
        return False

    def free(self) -> None:
        """Take the filler away."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, with all that is on it."""
        subprocess.run(
            ["umount", "--lazy", str(self.folder)], check=True, capture_output=True, timeout=30
        )
