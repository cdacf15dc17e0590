"""Folders of Hugging Face datasets: which files hold the rows of a split.

Read are what ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` leave (datasets 5: Arrow
files, listed in ``state.json``), and a folder of Parquet or JSON Lines files named by their split,
as a repository of the hub has them. Nothing is fetched.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainer.dataset.folder import MANIFEST
from trainer.errors import BadInput

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_SHARD = re.compile(
    r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.(?P<suffix>parquet|jsonl|arrow)"
)


def find_shards(path: Path) -> tuple[Path, ...]:
    """Return the files of a saved dataset, in their order.

    ``path`` is its folder, or ``FOLDER/SPLIT`` where it has several splits. Raises BadInput for
    a folder that is none, one with several splits, and a name that is no folder here.
    """
    if (path / MANIFEST).is_file():
        raise BadInput(f"{path}: is a dataset that prepare made: give it the export instead")
    if path.is_dir():
        return _of_folder(path)
    if path.parent != path and path.parent.is_dir() and str(path.parent) != ".":
        if (path.parent / MANIFEST).is_file():
            raise BadInput(f"{path.parent}: is a dataset that prepare made: its splits are sealed")
        splits = _by_split(path.parent)
        if path.name in splits:
            return splits[path.name]
        if splits:
            raise BadInput(f"{path.parent}: no split {path.name!r}; there are: {_list(splits)}")
    raise BadInput(
        f"{path}: there is no such file or folder. A name on the hub is not fetched: where there "
        f"is a network, datasets.load_dataset({str(path)!r}).save_to_disk('saved'); then give "
        "that folder"
    )


def _of_folder(path: Path) -> tuple[Path, ...]:
    if (path / _STATE).is_file():
        return _listed(path)
    if (path / _SPLITS).is_file():
        names = _json(path / _SPLITS).get("splits")
        if not isinstance(names, list) or not names:
            raise BadInput(f"{path / _SPLITS}: lists no splits")
        return _of_folder(path / str(_only(path, [str(name) for name in names])))
    splits = _by_split(path)
    if not splits:
        raise BadInput(
            f"{path}: is a folder without {_STATE} (Dataset.save_to_disk) or files like "
            "train-00000-of-00001.parquet or train.jsonl: name the files"
        )
    return splits[_only(path, list(splits))]


def _only(path: Path, names: list[str]) -> str:
    if len(names) > 1:
        raise BadInput(
            f"{path}: holds several splits ({_list(names)}): name one, as {path / names[0]}"
        )
    return names[0]


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _listed(path: Path) -> tuple[Path, ...]:
    """Return the files that a saved split lists."""
    try:
        names = [str(entry["filename"]) for entry in _json(path / _STATE)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path / _STATE}: lists no files: save the dataset again") from error
    if not names:
        raise BadInput(f"{path}: holds no rows")
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise BadInput(f"{path / _STATE}: lists {name!r}, which is not in the folder")
    return tuple(path / name for name in names)


def _by_split(path: Path) -> dict[str, tuple[Path, ...]]:
    """Return split -> its files, of ``path`` or else of its folder ``data``."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        found = _SHARD.fullmatch(file.name)
        if found and file.is_file():
            splits.setdefault(found["split"], []).append(file)
    for split, files in splits.items():
        if len(kinds := {file.suffix for file in files}) > 1:
            raise BadInput(
                f"{path}: the split {split!r} is there as {_list(kinds)}: name the files"
            )
    if not splits and (path / "data").is_dir():
        return _by_split(path / "data")
    return {split: tuple(files) for split, files in splits.items()}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path}: must hold a JSON object")
    return value
