"""Find the files in folders saved by Hugging Face datasets.

Supported are the folders of ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` (datasets 5:
Arrow files, listed in ``state.json``), and folders of Parquet or JSON Lines files named by their
split, as in a repository on the hub. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainer.dataset.folder import MANIFEST
from trainer.errors import BadInput

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_SHARD = re.compile(
    r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.(?P<suffix>parquet|jsonl|arrow)"
)


def find_shards(path: Path) -> tuple[Path, ...]:
    """Return the files of a saved dataset, in order.

    ``path`` is its folder, or ``FOLDER/SPLIT`` if it has several splits. Raises BadInput for
    another kind of folder, one with several splits, or a path that does not exist.
    """
    if (path / MANIFEST).is_file():
        raise BadInput(f"{path}: is a dataset made by prepare: give the export instead")
    if path.is_dir():
        return _of_folder(path)
    if path.parent != path and path.parent.is_dir() and str(path.parent) != ".":
        if (path.parent / MANIFEST).is_file():
            raise BadInput(f"{path.parent}: is a dataset made by prepare: give the export instead")
        splits = _by_split(path.parent)
        if path.name in splits:
            return splits[path.name]
        if splits:
            raise BadInput(f"{path.parent}: no split {path.name!r}; there are: {_list(splits)}")
    raise BadInput(
        f"{path}: no such file or folder. A dataset on the hub is not downloaded: where there is a "
        f"network, run datasets.load_dataset({str(path)!r}).save_to_disk('saved'), then give "
        "that folder"
    )


def _of_folder(path: Path) -> tuple[Path, ...]:
    if (path / _STATE).is_file():
        return _listed(path)
    if (path / _SPLITS).is_file():
        return _of_folder(path / _only(path, _names(path / _SPLITS, lambda found: found["splits"])))
    splits = _by_split(path)
    if not splits:
        raise BadInput(
            f"{path}: this folder has neither {_STATE} (Dataset.save_to_disk) nor files such as "
            "train-00000-of-00001.parquet or train.jsonl: name the files"
        )
    return splits[_only(path, list(splits))]


def _only(path: Path, names: list[str]) -> str:
    if len(names) > 1:
        raise BadInput(
            f"{path}: has several splits ({_list(names)}): name one, such as {path / names[0]}"
        )
    return names[0]


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _listed(path: Path) -> tuple[Path, ...]:
    state = path / _STATE
    names = _names(state, lambda found: [each["filename"] for each in found["_data_files"]])
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise BadInput(f"{state}: lists {name!r}, which is not in the folder")
    return tuple(path / name for name in names)


def _by_split(path: Path) -> dict[str, tuple[Path, ...]]:
    """Return split -> its files, in ``path`` or else in its folder ``data``."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        found = _SHARD.fullmatch(file.name)
        if found and file.is_file():
            splits.setdefault(found["split"], []).append(file)
    for split, files in splits.items():
        if len(kinds := {file.suffix for file in files}) > 1:
            raise BadInput(f"{path}: the split {split!r} exists as {_list(kinds)}: name the files")
    if not splits and (path / "data").is_dir():
        return _by_split(path / "data")
    return {split: tuple(files) for split, files in splits.items()}


def _names(path: Path, of: Callable[[Any], Sequence[object]]) -> list[str]:
    """Return the names that a JSON file lists."""
    try:
        names = [str(name) for name in of(json.loads(path.read_text(encoding="utf-8")))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: lists no files or splits: save the dataset again") from error
    if not names:
        raise BadInput(f"{path.parent}: has no rows")
    return names
