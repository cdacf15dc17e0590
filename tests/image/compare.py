"""Two builds of one image, compared file by file.

    python -m tests.image.compare filing-clerk-worker-cpu-demo:one filing-clerk-worker-cpu-demo:two

Compares path, type, mode, owner, content and time of every file. Exits with 1 if more than times
differ.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
from dataclasses import dataclass
from typing import Any

import docker


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of an image. ``digest`` is a file's content, or a link's target."""

    what: tuple[bytes, int, int, int]
    digest: str
    changed_at: int


class _Chunks:
    """A file object over the chunks of a stream."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._left = b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (more := next(self._chunks, b"")):
            self._left += more
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def entries(engine: Any, image: str) -> dict[str, Entry]:
    """Read every path of an image without running it."""
    container = engine.containers.create(image)
    try:
        stream: Any = _Chunks(container.export(chunk_size=4 << 20))
        found = {}
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                digest = member.linkname
                if member.isreg():
                    file: Any = archive.extractfile(member)  # its type omits readinto
                    assert file is not None
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                what = (member.type, member.mode, member.uid, member.gid)
                found[member.name] = Entry(what, digest, int(member.mtime))
        return found
    finally:
        container.remove()


def main() -> int:
    engine = docker.from_env(timeout=3600)
    first, second = (entries(engine, image) for image in sys.argv[1:3])
    both = first.keys() & second.keys()
    groups = {
        "in one alone": sorted(first.keys() ^ second.keys()),
        "type, mode or owner": sorted(
            name for name in both if first[name].what != second[name].what
        ),
        "content": sorted(name for name in both if first[name].digest != second[name].digest),
        "time": sorted(name for name in both if first[name].changed_at != second[name].changed_at),
    }
    print(f"{len(first)} and {len(second)} paths")
    for title, names in groups.items():
        print(f"{title}: {len(names)}", *names[:40], sep="\n  ")
    return int(any(names for title, names in groups.items() if title != "time"))


if __name__ == "__main__":
    raise SystemExit(main())
