"""Probes beside an adapter: messages whose labels are known, on which a worker tries it.

They are messages, and so private: they stand in a file of their own, beside the adapter's
directory and named after it, that other users need not be able to read, and not in the manifest,
which everybody reads who serves the adapter. The adapter's digest does not cover them: without
them, or with others, it is the same adapter.

    runs/one/adapter/           runs/one/adapter.probes.json
    STORE/<digest>/             STORE/<digest>.probes.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.contract.codec import decode, encode
from worker.contract.digest import write_atomically
from worker.contract.errors import AdapterRefused
from worker.contract.manifest import Manifest, Probe

SUFFIX = ".probes.json"

ProbeSource = Literal["written", "validation"]
"""Whose words the probes are: of a person who wrote or approved them for this, or of customers,
from the validation set."""

_MODE = 0o640


@dataclass(frozen=True, slots=True)
class ProbeFile:
    """Probes of the adapter with the digest ``adapter``, and where they are from."""

    adapter: str
    source: ProbeSource
    probes: tuple[Probe, ...]
    schema: Literal["probes/1"] = "probes/1"


def probes_path(adapter: Path) -> Path:
    """Return where the probes of the adapter in a directory are, if it has any."""
    directory = adapter.resolve()
    return directory.with_name(f"{directory.name}{SUFFIX}")


def read_probes(path: Path, manifest: Manifest) -> ProbeFile | None:
    """Read a file of probes, None where there is none.

    Raises AdapterRefused where it cannot be read, is malformed, or is of another adapter: probes
    that were asked for are not left out silently. The text of a message is in no error.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        file = decode(ProbeFile, data, "the file of probes")
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise AdapterRefused(
            path,
            "this user may not read it: have it run in the file's group, or publish the adapter "
            "again with --probes off",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise AdapterRefused(path, f"no file of probes ({what}): publish again") from error
    assert isinstance(file, ProbeFile)
    if file.adapter != manifest.digest:
        raise AdapterRefused(path, "holds the probes of another adapter: publish again")
    labels = {probe.label for probe in file.probes}
    if strange := sorted(labels.difference(manifest.taxonomy.names)):
        raise AdapterRefused(path, f"names labels that the adapter lacks ({strange}): write anew")
    return file


def write_probes(path: Path, file: ProbeFile) -> None:
    """Write a file of probes, for its owner and its group alone. Raises OSError."""
    text = json.dumps(encode(file), indent=1, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8") + b"\n", mode=_MODE)


def attach_probes(manifest: Manifest, adapter: Path) -> Manifest:
    """Give a manifest that was read from the directory ``adapter`` the probes beside it, if there
    are any, and return it. Its digest stays. Raises AdapterRefused."""
    file = read_probes(probes_path(adapter), manifest)
    if file is not None:
        object.__setattr__(manifest, "probes", file.probes)  # the class is frozen
    return manifest
