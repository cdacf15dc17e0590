"""Publish into a store in a bucket: work on a copy of its small files, then write what changed.

Adapters, records and cards come first, then the history, only if nobody else has written it since
it was read, and the pointers last, on the same condition. The one who comes second is told who was
first, and the bucket stays as that one left it. Killed at any step, it leaves the old pointer or
the new one.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import BadInput
from worker.common.bucket import Bucket, LostRace, StoreAway, copy_of, url_of
from worker.common.cache import cache_folder
from worker.contract.digest import sha256_bytes
from worker.contract.manifest import MANIFEST_NAME, is_digest
from worker.contract.store import CANARY_NAME, CURRENT_NAME, HISTORY_NAME

_READ = ".read"
"""What was read: the digest of each file, and the ETag of its object."""

_CONDITIONAL = (HISTORY_NAME, CURRENT_NAME, CANARY_NAME)  # in the order in which they are written


def open_store(url: str) -> Path:
    """Return a copy of a store's small files for this process: pointers, history, records,
    manifests. Raises BadInput."""
    parent = cache_folder() / "publishing"
    parent.mkdir(parents=True, exist_ok=True)
    folder = copy_of(url, Path(tempfile.mkdtemp(dir=parent)))
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    folder.mkdir()
    read = {}
    with _told():
        bucket = Bucket(url)
        for name in bucket.list():
            if "/" not in name or name.endswith(f"/{MANIFEST_NAME}"):
                found = bucket.get(name)
                if found is None:
                    continue
                read[name] = (sha256_bytes(found.data), found.etag)
                if found.data:  # an ended canary's object is empty
                    path = folder / name
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(found.data)
    (folder / _READ).write_text(json.dumps(read))
    return folder


def fetch(store: Path, digest: str) -> None:
    """Bring the files of an adapter into a copy of a store, and of a cascade's stages; nothing if
    it is not a copy. Raises BadInput."""
    url = url_of(store)
    if url is None:
        return
    from worker.contract import read_manifest

    with _told():
        bucket = Bucket(url)
        for name in bucket.list(digest):
            path = store / name
            if not path.exists():
                bucket.download(name, path, lambda _: None)
    for stage in read_manifest(store / digest).stages:
        fetch(store, stage.digest)


def commit(store: Path) -> None:
    """Write what changed in a copy of a store into its bucket; nothing if it is not a copy.

    Raises BadInput if another publication or move came first, and if the bucket does not answer.
    """
    url = url_of(store)
    if url is None:
        return
    read: dict[str, tuple[str, str]] = json.loads((store / _READ).read_text(encoding="utf-8"))
    changed = dict(_changed(store, read))
    with _told():
        bucket = Bucket(url)
        for folder in sorted(store.iterdir()):
            # One with its manifest alone was not touched.
            if is_digest(folder.name) and folder.is_dir() and len(list(folder.iterdir())) > 1:
                bucket.upload(folder, folder.name)
        for name in sorted(changed.keys() - set(_CONDITIONAL)):
            data = changed[name]
            bucket.delete(name) if data is None else bucket.put(name, data)
        for name in (each for each in _CONDITIONAL if each in changed):
            etag = read[name][1] if name in read else None
            try:
                # An object cannot be deleted on a condition, so an ended canary's is empty.
                bucket.put_if(name, changed[name] or b"", etag)
            except LostRace:
                raise BadInput(f"{url}: {_winner(bucket)} came first: try again") from None


def _changed(store: Path, read: dict[str, tuple[str, str]]) -> Iterator[tuple[str, bytes | None]]:
    """Yield the small files that are not as they were read; None for one that is gone."""
    files = {path.name: path for path in store.iterdir() if path.is_file()}
    for name, path in files.items():
        if not name.startswith("."):
            data = path.read_bytes()
            if name not in read or read[name][0] != sha256_bytes(data):
                yield name, data
    empty = sha256_bytes(b"")
    for name in read:
        if "/" not in name and name not in files and read[name][0] != empty:
            yield name, None


def _winner(bucket: Bucket) -> str:
    found = bucket.get(HISTORY_NAME)
    try:
        last = json.loads((found.data if found else b"").splitlines()[-1])
        return f"{last['by']} ({last['event']} of {last['name']}, {last['at']})"
    except (ValueError, KeyError, TypeError, IndexError):
        return "somebody else"


@contextmanager
def _told() -> Iterator[None]:
    """Raise BadInput for a bucket that does not answer."""
    try:
        yield
    except StoreAway as error:
        raise BadInput(f"{error}: run the command again, which completes what was begun") from None
