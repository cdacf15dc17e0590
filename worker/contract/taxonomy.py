"""The fixed set of labels, with their descriptions."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worker.contract.codec import decode, encode
from worker.contract.digest import sha256_json
from worker.contract.errors import TaxonomyError

NO_LABEL = "none"
"""Reviewers and labelling tools write this if no label fits, so no label can have this name."""

_MAX_NAME_CHARS = 100


def label_name(text: str) -> str:
    """Return a label that someone typed in the form that ``Taxonomy.from_toml`` gives it: Unicode
    NFC, no blanks around it. Accented letters have two encodings that look alike, and which one a
    keyboard or spreadsheet writes depends on the system."""
    return unicodedata.normalize("NFC", text.strip())


def spellings(name: str) -> tuple[str, ...]:
    """Return the ways in which a label's name is written, its own first."""
    words = [word for word in re.split(r"[\W_]+", name) if word]
    plain = " ".join(words)
    found = (
        name,
        plain,
        plain.title(),
        plain.upper(),
        "-".join(words),
        "".join(word.capitalize() for word in words),
        f'"{plain}"',
    )
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Label:
    """One category: the name that routers match and the description that reviewers read."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """An ordered, closed set of at least two labels. Raises TaxonomyError for anything else."""

    name: str
    version: str
    description: str
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.version:
            raise TaxonomyError("a taxonomy needs a 'name' and a 'version', both non-empty")
        if len(self.labels) < 2:
            raise TaxonomyError(
                f"taxonomy {self.name!r} has {len(self.labels)} labels; two or more"
            )
        seen: dict[str, str] = {}
        for label in self.labels:
            _check_name(self.name, label.name)
            folded = label_name(label.name).casefold()
            twin = seen.get(folded)
            if twin == label.name:
                raise TaxonomyError(f"taxonomy {self.name!r} names the label {label.name!r} twice")
            if twin is not None:
                raise TaxonomyError(
                    f"taxonomy {self.name!r} has the labels {twin!r} and {label.name!r}, which "
                    "differ only in case or Unicode form: rename one"
                )
            seen[folded] = label.name

    @property
    def names(self) -> tuple[str, ...]:
        """In the taxonomy's order."""
        return tuple(label.name for label in self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 over name, version, description and the labels in order."""
        return sha256_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, for ``from_dict``."""
        data: dict[str, Any] = encode(self)
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Taxonomy:
        """Build from parsed JSON or TOML. Raises TaxonomyError with the entry at fault."""
        try:
            given = {"description": "", **data} if isinstance(data, dict) else data
            found = decode(cls, given, "the taxonomy")
        except ValueError as error:
            raise TaxonomyError(str(error)) from None
        assert isinstance(found, cls)
        return found

    @classmethod
    def from_toml(cls, path: Path) -> Taxonomy:
        """Read a file such as ``config/taxonomy.toml``, with names in NFC. Raises TaxonomyError."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TaxonomyError(f"{path}: cannot read the taxonomy: {error}") from error
        try:
            read = cls.from_dict(data)
            labels = tuple(replace(each, name=label_name(each.name)) for each in read.labels)
            return replace(read, labels=labels)
        except TaxonomyError as error:
            raise TaxonomyError(f"{path}: {error}") from error


def _check_name(taxonomy: str, name: str) -> None:
    if not name or name != name.strip() or not name.isprintable() or len(name) > _MAX_NAME_CHARS:
        raise TaxonomyError(
            f"taxonomy {taxonomy!r} has the label name {name!r}: use 1 to {_MAX_NAME_CHARS} "
            "printable characters with no blanks at either end"
        )
    if name.casefold() == NO_LABEL:
        raise TaxonomyError(
            f"taxonomy {taxonomy!r} has the label name {name!r}, which means that no label fits: "
            "use another, such as 'other'"
        )
