"""Models by their name on the Hugging Face hub or a mirror of it (``HF_ENDPOINT``): from the cache
of ``huggingface_hub``, fetched into it only when a person asks for that."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w.-]+))?")
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model's folder in the cache, its commit, and the bytes of its files."""

    name: str
    revision: str
    folder: Path
    files: dict[str, int]


def local_folder(given: Path) -> Path:
    """Return a folder: ``given``, or the one in the cache if that is not a folder and looks like
    ``OWNER/NAME[@REVISION]``. Raises BadInput if the model is not in the cache."""
    found = _NAME.fullmatch(str(given))
    if found is None or given.exists():
        return given
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # By the same patterns: the cache also knows which files it was not asked for.
        return Path(
            snapshot_download(
                found[1], revision=found[2], local_files_only=True, allow_patterns=list(_WANTED)
            )
        )
    except LocalEntryNotFoundError:
        raise BadInput(
            f"{given}: no such folder, and no model of this name is in the cache: clerk-trainer "
            f"base get {given} fetches it"
        ) from None


def fetch(given: str) -> Fetched:
    """Fetch ``OWNER/NAME[@REVISION]`` into the cache: weights as safetensors, configuration and
    tokenizer. The revision is a branch, tag or commit (main), and is pinned to the commit that it
    is now. Raises BadInput."""
    found = _NAME.fullmatch(given)
    if found is None:
        raise BadInput(f"{given}: a model's name is OWNER/NAME or OWNER/NAME@REVISION")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is imported
    from huggingface_hub import HfApi, snapshot_download

    name, revision = found[1], found[2]
    try:
        info: Any = HfApi().model_info(name, revision=revision)
        safe = any(each.rfilename.endswith(".safetensors") for each in info.siblings)
        wanted = list(_WANTED) if safe else []
        # By its branch or tag, which the cache then knows too; the folder is named by the commit.
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # of the hub, of its HTTP client, of the disk
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{given}: cannot be fetched ({first}): check the name and the revision; for a mirror "
            "set HF_ENDPOINT, for a model behind a login HF_TOKEN"
        ) from error
    if not safe:
        raise BadInput(f"{name}: has no weights as safetensors: other forms can hold code")
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Fetched(name, folder.name, folder, files)
