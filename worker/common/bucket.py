"""A store in a bucket (``s3://``, ``gs://``, ``az://``), and its copy on this disk.

Programs work on the copy as on any store: a folder whose name is the quoted URL, so that a path
tells whether it is such a copy and of what. obstore finds credentials and endpoint as the clouds'
own tools do, in the environment, at the instance or the pod's identity (``AWS_ENDPOINT_URL`` for
MinIO, Ceph, R2 and others).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from worker.contract import AdapterRefused
from worker.contract.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SCHEMES = r"(?:s3|gs|az)"
_CHUNK = 8 << 20


class StoreAway(AdapterRefused):
    """The bucket does not answer, or refuses: the text says what it said. What it has cannot be
    served."""


class LostRace(Exception):
    """Another writer changed the object first."""


def is_url(given: object) -> bool:
    """Return whether a store is given by a URL of a bucket."""
    return isinstance(given, str) and re.match(rf"{_SCHEMES}://[^/]", given) is not None


def copy_of(url: str, folder: Path) -> Path:
    """Return where the copy of the store at ``url`` is in ``folder``."""
    return folder / quote(url.rstrip("/"), safe="")


def url_of(path: Path) -> str | None:
    """Return the URL of the store that ``path`` is a copy of, or None."""
    return unquote(path.name) if re.match(rf"{_SCHEMES}%3A%2F%2F", path.name) else None


def called(text: str) -> str:
    """Return a text for people, with the URL in place of a copy's path."""
    return re.sub(
        rf"[^\s'\"]*/({_SCHEMES}%3A%2F%2F[^\s/:'\"]+)", lambda found: unquote(found[1]), text
    )


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes and its ETag."""

    data: bytes
    etag: str


class Bucket:
    """The objects below a URL, by their names relative to it. Calls raise StoreAway after
    ``patience_s``."""

    def __init__(self, url: str, patience_s: float = 60.0) -> None:
        try:
            from obstore.store import from_url
        except ImportError:
            raise StoreAway(
                url, "needs the extra bucket: pip install 'filing-clerk[bucket]'"
            ) from None
        self.url = url
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        with _answered(url):
            self._store: ObjectStore = from_url(
                url,
                client_options={
                    "connect_timeout": "5s",
                    "timeout": "300s",
                    **({"allow_http": True} if plain else {}),
                },
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=patience_s)},
            )

    def get(self, name: str, known: str | None = None) -> Blob | None:
        """Return an object; None if there is none. Raises NotModified if its ETag is ``known``."""
        from obstore.exceptions import NotModifiedError

        try:
            with _answered(self.url):
                found = self._store.get(name, options={"if_none_match": known} if known else {})
                return Blob(found.bytes().to_bytes(), found.meta["e_tag"] or "")
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise StoreAway(self.url, "there is no such bucket") from None
            return None
        except NotModifiedError:
            assert known is not None
            raise NotModified from None

    def put(self, name: str, data: bytes | Path) -> None:
        """Write an object, whatever is there."""
        with _answered(self.url):
            self._store.put(name, data)

    def put_if(self, name: str, data: bytes, etag: str | None) -> None:
        """Write an object if its ETag is still this one, or None: if there is none. Raises
        LostRace."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        # Not If-Match: *, which MinIO answers for a missing object too.
        try:
            with _answered(self.url):
                self._store.put(name, data, mode={"e_tag": etag} if etag else "create")
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # A write that was repeated after a lost answer meets itself.
            found = self.get(name)
            if found is None or found.data != data:
                raise LostRace(name) from None

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with _answered(self.url):
            self._store.delete(name)

    def list(self, prefix: str | None = None) -> dict[str, int]:
        """Return the sizes of the objects below ``prefix`` (a folder), by name."""
        with _answered(self.url):
            return {
                meta["path"]: meta["size"] for part in self._store.list(prefix) for meta in part
            }

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Return size and time of change (ns) of every object, by name."""
        with _answered(self.url):
            return {
                meta["path"]: (meta["size"], int(meta["last_modified"].timestamp() * 1e9))
                for part in self._store.list()
                for meta in part
            }

    def upload(self, folder: Path, prefix: str) -> None:
        """Write a folder's files below ``prefix``, the manifest last: with it they are whole."""
        there = self.list(prefix)
        files = sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST_NAME)
        for path in files:
            name = f"{prefix}/{path.name}"
            if there.get(name) != path.stat().st_size:
                self.put(name, path)

    def download(self, name: str, path: Path, done: Callable[[int], None]) -> None:
        """Write an object into a file, after what an earlier attempt left there; tell ``done`` of
        the bytes as they come. Raises FileNotFoundError if there is none."""
        with _answered(self.url), path.open("ab") as file:
            size = self._store.head(name)["size"]
            if file.tell() > size:
                file.truncate(0)
            while (at := file.tell()) < size:
                part = self._store.get_range(name, start=at, end=min(at + _CHUNK, size))
                file.write(part.to_bytes())
                done(len(part))
            file.flush()
            os.fsync(file.fileno())


class NotModified(Exception):
    """The object is the one that is known."""


@contextmanager
def _answered(url: str) -> Iterator[None]:
    """Raise StoreAway for errors that say nothing of the object."""
    from obstore import exceptions

    try:
        yield
    except (
        exceptions.AlreadyExistsError,
        exceptions.NotModifiedError,
        exceptions.PreconditionError,
    ):
        raise
    except (exceptions.BaseError, PermissionError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        said = " ".join(str(error).partition("Debug source:")[0].split())
        raise StoreAway(url, said[:400]) from None
