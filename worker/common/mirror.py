"""What a worker has of a store in a bucket: its pointers, and the adapters that they name.

    <cache>/stores/<quoted URL>/        a store as any other (worker.contract.store), and a cache

The pointers are written last, when what they name is here and verified, so that a reader of the
folder never sees an adapter that is still coming. Workers may share the folder: each adapter is
fetched once, and a fetch that broke off goes on where it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from worker.common.bucket import Bucket, NotModified, StoreAway, copy_of, is_url, url_of
from worker.common.cache import cache_folder
from worker.common.signatures import signature_path
from worker.contract import AdapterRefused, load_adapter, read_manifest
from worker.contract.digest import sync_directory, write_atomically
from worker.contract.manifest import MANIFEST_NAME, is_digest
from worker.contract.store import CANARY_NAME, CURRENT_NAME, stored_digests
from worker.contract.verify import probes_path

POLL_S = 5.0
"""How often a worker asks for the two pointers: each time two requests, mostly "not modified"."""

FRESH = ".fresh"
"""Its time is that of the last answer."""

_PATIENCE_S = 10.0
_AGAIN_S = 5.0
_SAID_BYTES = 64 << 20

_log = structlog.get_logger("worker.adapters")
_followed: set[Path] = set()


def local_path(given: Any) -> Any:
    """Return the path of the copy for a bucket's URL, anything else as it is."""
    return copy_of(given, cache_folder() / "stores") if is_url(given) else given


class StoreMirror:
    """The copy in ``folder`` of the store whose URL it names, kept below ``limit_bytes``, if the
    adapters in use allow it."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        url = url_of(folder)
        assert url is not None
        self.folder = folder
        self._bucket = Bucket(url, _PATIENCE_S)
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._etags: dict[str, str] = {}
        self._verified: set[str] = set()
        self._asked_at = float("-inf")
        self.away_since: float | None = None
        """Since when the bucket does not answer (monotonic seconds); None if it does."""
        folder.mkdir(parents=True, exist_ok=True)

    def poll(self) -> None:
        """Refresh, if the last time was ``POLL_S`` ago."""
        if self._clock() - self._asked_at >= POLL_S:
            self.refresh()

    def refresh(self) -> bool:
        """Bring the pointers and what they name; return whether the bucket answered. Where it does
        not, everything stays as it is."""
        self._asked_at = self._clock()
        try:
            for name in (CURRENT_NAME, CANARY_NAME):
                self._bring_pointer(name)
        except StoreAway as error:
            if self.away_since is None:
                self.away_since = self._clock()
                _log.error("store.away", problem=str(error))
            return False
        (self.folder / FRESH).touch()
        if self.away_since is not None:
            away_s = round(self._clock() - self.away_since, 1)
            _log.info("store.back", store=self._bucket.url, seconds=away_s)
            self.away_since = None
        return True

    def begin(self, fresh_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Refresh, or return with a copy whose last answer is at most ``fresh_s`` old; else wait
        for the bucket."""
        _followed.add(self.folder)
        said = False
        while not self.refresh():
            age_s = self._age_s()
            if age_s <= fresh_s:
                _log.warning("store.from_cache", store=self._bucket.url, seconds=round(age_s))
                return
            if not said:
                said = True
                _log.warning(
                    "store.waited_for",
                    store=self._bucket.url,
                    why=f"nothing here is younger than {fresh_s:.0f} s"
                    " (adapters.start_from_cache_s)",
                )
            sleep(_AGAIN_S)

    def bring(self, prefix: str) -> None:
        """Bring the adapters whose digests begin with ``prefix``. Raises StoreAway."""
        for digest in self.digests():
            if digest.startswith(prefix):
                self._bring_adapter(digest)

    def digests(self) -> list[str]:
        """Return the digests of the bucket's whole adapters, sorted. Raises StoreAway."""
        places = (name.split("/") for name in self._bucket.list())
        return sorted(place[0] for place in places if len(place) == 2 and place[1] == MANIFEST_NAME)

    def _age_s(self) -> float:
        if not (self.folder / CURRENT_NAME).exists():
            return float("inf")
        try:
            return time.time() - (self.folder / FRESH).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _bring_pointer(self, name: str) -> None:
        path = self.folder / name
        known = self._etags.get(name) if path.exists() or name == CANARY_NAME else None
        try:
            found = self._bucket.get(name, known)
        except NotModified:
            return
        if found is None or not found.data:  # an ended canary's object is empty
            path.unlink(missing_ok=True)
        else:
            for digest in _named_in(found.data):
                self._bring_adapter(digest)
            if not path.exists() or path.read_bytes() != found.data:
                write_atomically(path, found.data)
            self._evict()
        self._etags[name] = found.etag if found else ""

    def _bring_adapter(self, digest: str) -> None:
        """Bring an adapter, its probes, and a cascade's stages, unless they are here. One that the
        bucket does not have is left out, and a damaged one stays, to be refused by its reader."""
        folder = self.folder / digest
        with (self.folder / f".{digest}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = digest in self._verified and folder.exists()
            if not known and (_is_whole(folder) or self._fetch(digest)):
                self._verified.add(digest)
            if not folder.exists():
                return
            for path, mode in ((probes_path(folder), 0o640), (signature_path(folder), 0o644)):
                beside = self._bucket.get(path.name)
                if beside is not None:
                    write_atomically(path, beside.data, mode=mode)
        os.utime(folder)
        for stage in self._stages(digest):
            self._bring_adapter(stage)

    def _fetch(self, digest: str) -> bool:
        """Fetch an adapter's files, in place of what is here; return whether they are whole."""
        sizes = self._bucket.list(digest)
        if not sizes:
            return False
        total, came, said = sum(sizes.values()), 0, 0
        began = self._clock()
        part = self.folder / f".incoming.{digest}"
        part.mkdir(exist_ok=True)

        def done(count: int) -> None:
            nonlocal came, said
            came += count
            if came - said >= _SAID_BYTES:
                said = came
                _log.info(
                    "adapter.fetching", adapter_digest=digest[:12], bytes=came, of_bytes=total
                )

        for attempt in (1, 2):
            for name in sizes:
                with suppress(FileNotFoundError):
                    self._bucket.download(name, part / name.rpartition("/")[2], done)
            whole = _is_whole(part)
            if whole or attempt == 2:
                break
            shutil.rmtree(part)  # what broke off was not the beginning of what is there now
            part.mkdir()
        sync_directory(part)
        shutil.rmtree(self.folder / digest, ignore_errors=True)
        part.rename(self.folder / digest)
        sync_directory(self.folder)
        _log.info(
            "adapter.fetched",
            adapter_digest=digest[:12],
            bytes=total,
            seconds=round(self._clock() - began, 1),
        )
        return whole

    def _stages(self, digest: str) -> list[str]:
        """Return the digests of a cascade's stages; none of an adapter that cannot be read."""
        try:
            return [stage.digest for stage in read_manifest(self.folder / digest).stages]
        except AdapterRefused:
            return []

    def _evict(self) -> None:
        """Remove the adapters that were named longest ago, until the others fit."""
        kept = set(self._in_use())
        found = [self.folder / digest for digest in stored_digests(self.folder)]
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in found}
        for path in sorted(found, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) <= self._limit_bytes:
                return
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
                probes_path(path).unlink(missing_ok=True)
                signature_path(path).unlink(missing_ok=True)
                self._verified.discard(path.name)
                del sizes[path]
                _log.info("adapter.evicted", adapter_digest=path.name[:12])

    def _in_use(self) -> Iterator[str]:
        for name in (CURRENT_NAME, CANARY_NAME):
            with suppress(FileNotFoundError):
                for digest in _named_in((self.folder / name).read_bytes()):
                    yield digest
                    yield from self._stages(digest)


def _named_in(pointer: bytes) -> list[str]:
    """Return the digests that a pointer names; none of one that cannot be read, which its reader
    refuses."""
    with suppress(ValueError, TypeError, AttributeError):
        found = json.loads(pointer)
        named = (found.get("digest"), found.get("previous"))
        return [digest for digest in named if isinstance(digest, str) and is_digest(digest)]
    return []


def _is_whole(folder: Path) -> bool:
    try:
        return load_adapter(folder).digest == folder.name.rpartition(".")[2]
    except AdapterRefused:
        return False


def bring_store(configured: Path | None, prefix: str = "") -> None:
    """For a single command: bring a bucket's pointers, or the adapters whose digests begin with
    ``prefix``, into the copy. Raises StoreAway."""
    if configured is None or url_of(configured) is None:
        return
    if configured in _followed and not prefix:  # a running worker's own mirror keeps it
        return
    mirror = StoreMirror(configured)
    if re.fullmatch(r"[0-9a-f]{4,64}", prefix):
        mirror.bring(prefix)
    elif not mirror.refresh() and not (configured / CURRENT_NAME).exists():
        raise StoreAway(str(url_of(configured)), "does not answer, and no copy of it is here")
