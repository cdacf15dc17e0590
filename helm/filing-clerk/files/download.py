"""Download files, each complete or not at all: python3 download.py 'SHA256 PATH URL' ...

Each file is downloaded next to its destination under a temporary name, checked against its digest,
synced to disk, and renamed. So a killed pod never leaves a partial file under the final name, and
several pods can download at once. A file with the wanted digest is skipped; one with another is
replaced. DOWNLOAD_AUTHORIZATION, if set, is sent as the Authorization header, but not to another
host after a redirect. Standard library only.
"""

import hashlib
import os
import sys
import time
import urllib.parse
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path

_ATTEMPTS, _PAUSE_S, _TIMEOUT_S = 5, 5.0, 60.0
_CHUNK_BYTES = 1024 * 1024
_OLD_S = 24 * 3600.0


class _Refused(Exception):
    """The downloaded file has another digest."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Removes the login when a redirect leads to another host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """See the base class."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and following.host != req.host:
            following.remove_header("Authorization")
        return following


def main(wanted: list[str]) -> int:
    """Download the missing files; 1 if one of them failed."""
    for line in wanted:
        digest, path, url = line.split(" ", 2)
        if Path(path).exists():
            if _digest_of(Path(path)) == digest:
                print(f"{path} exists", flush=True)
                continue
            print(f"{path} has another digest than {digest}: it is downloaded again", flush=True)
        if not _fetched(digest, Path(path), url):
            return 1
    return 0


def _digest_of(path: Path) -> str:
    # At each start, also of 15 GB: a note of an earlier check would be a file that an adapter's
    # folder may not have. The engine reads the same pages next.
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _fetched(digest: str, path: Path, url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            size = _fetch(digest, path, url)
        except (OSError, HTTPException, _Refused) as error:
            print(f"{path} from {host}, attempt {attempt} of {_ATTEMPTS}: {error}", flush=True)
            if attempt < _ATTEMPTS:
                time.sleep(_PAUSE_S)
        else:
            print(f"{path} downloaded, {size} bytes", flush=True)
            return True
    return False


def _fetch(digest: str, path: Path, url: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    request = urllib.request.Request(url)  # noqa: S310 - the chart accepts only http and https
    if login := os.environ.get("DOWNLOAD_AUTHORIZATION"):
        request.add_header("Authorization", login)
    found, size = hashlib.sha256(), 0
    try:
        opener = urllib.request.build_opener(_SameHost)
        with opener.open(request, timeout=_TIMEOUT_S) as answer, part.open("wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                found.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if found.hexdigest() != digest:
            raise _Refused(f"expected the digest {digest}, got {found.hexdigest()} ({size} bytes)")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _remove_left_over(path: Path) -> None:
    """Remove partial files of killed pods. No download takes a day."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        try:
            if time.time() - part.stat().st_mtime > _OLD_S:
                part.unlink()
        except FileNotFoundError:
            pass  # another pod removed it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
