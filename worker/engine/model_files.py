"""The base and the tokenizer of an adapter: found and checked by the digests of their files.

Only this file imports tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from worker.contract import (
    AdapterRefused,
    BaseModel,
    Encoders,
    Manifest,
    added_token_ids,
    all_added_tokens_special,
    tokenizer_directory,
    verify_base,
)
from worker.contract.prompt import Encode
from worker.errors import SettingsError

_CONFIG = "config.json"


def load_encoders(base_dir: Path) -> Encoders:
    """Load ``tokenizer.json`` twice: once reading control tokens, once taking them as plain text.

    Raises AdapterRefused when the file is missing or unreadable, SettingsError when the
    ``tokenizers`` library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SettingsError(
            "no tokenizer library: pip install 'filing-clerk[cpu]' or 'filing-clerk[gpu]'"
        ) from error

    path = base_dir / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise AdapterRefused(path, "missing: a base needs a fast tokenizer") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterRefused(path, f"cannot be read: {error}") from error
    try:
        control = Tokenizer.from_str(text)
        plain = Tokenizer.from_str(all_added_tokens_special(text))
        control_ids = added_token_ids(text)
    except Exception as error:  # the library raises no narrower one
        raise AdapterRefused(path, f"no tokenizer this version can read: {error}") from error
    plain.encode_special_tokens = True
    return Encoders(_encode(control), _encode(plain), control_ids)


def _encode(tokenizer: Any) -> Encode:
    # A tokenizer file may carry both; the contract shortens by itself, and nobody pads.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


class ModelFiles(Protocol):
    """What an adapter needs next to its own files."""

    def encoders(self, adapter: Path, manifest: Manifest) -> Encoders:
        """Return the tokenizer of the adapter in a directory, its base verified where it needs one.

        ``manifest`` is the directory's, its files are verified. Raises AdapterRefused.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """See ``ModelFiles``: the one base that is loaded, and no other."""

    tokenizer: Encoders
    base: BaseModel

    def encoders(self, adapter: Path, manifest: Manifest) -> Encoders:
        """See ``ModelFiles``."""
        if not same_files(manifest.base, self.base):
            raise AdapterRefused(
                adapter,
                f"was trained on {_named(manifest.base)}, and {_named(self.base)} is loaded: "
                "their files differ",
            )
        return self.tokenizer


class Bases:
    """See ``ModelFiles``: base models side by side, found by the digests of their files.

    ``directories`` are bases, or folders whose subdirectories are. A base's weights are read once,
    when an adapter first needs it; ``verify_weights=False`` compares their sizes alone. Safe to
    call from any thread.
    """

    def __init__(self, directories: Sequence[Path], *, verify_weights: bool = True) -> None:
        self._directories = tuple(directories)
        self._verify_weights = verify_weights
        self._verified: list[tuple[Path, BaseModel]] = []
        self._encoders: dict[str, Encoders] = {}

    def encoders(self, adapter: Path, manifest: Manifest) -> Encoders:
        """See ``ModelFiles``."""
        base = self.find(adapter, manifest) if manifest.needs_base else None
        digest = manifest.base.tokenizer_sha256
        if digest not in self._encoders:
            self._encoders[digest] = load_encoders(tokenizer_directory(adapter, manifest, base))
        return self._encoders[digest]

    def find(self, adapter: Path, manifest: Manifest) -> Path:
        """Return the directory of the base that an adapter was trained on, verified.

        Raises AdapterRefused: of a single base with what is wrong with it.
        """
        wanted = manifest.base
        for directory, base in self._verified:
            if same_files(base, wanted):
                return directory
        candidates = list(self._candidates())
        if not candidates:
            raise AdapterRefused(
                adapter, f"needs its base, {_named(wanted)}: name its directory in model.base"
            )
        fitting = candidates if len(candidates) == 1 else list(_fitting(candidates, wanted))
        if not fitting:
            raise AdapterRefused(
                adapter,
                f"was trained on {_named(wanted)}, and none of the {len(candidates)} base models "
                "in model.base and model.bases has its files: add its directory there",
            )
        verify_base(fitting[0], wanted, weights=self._verify_weights)
        self._verified.append((fitting[0], wanted))
        return fitting[0]

    def _candidates(self) -> Iterator[Path]:
        for directory in self._directories:
            inner = [] if (directory / _CONFIG).is_file() else _bases_in(directory)
            yield from inner or [directory]


def same_files(base: BaseModel, other: BaseModel) -> bool:
    """Whether the files are the same; what they are called is for people."""
    return (base.config_sha256, base.tokenizer_sha256, dict(base.weights)) == (
        other.config_sha256,
        other.tokenizer_sha256,
        dict(other.weights),
    )


def _fitting(candidates: Sequence[Path], wanted: BaseModel) -> Iterator[Path]:
    for directory in candidates:
        try:
            verify_base(directory, wanted, weights=False)
        except AdapterRefused:
            continue
        yield directory


def _bases_in(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [path.parent for path in sorted(directory.glob(f"*/{_CONFIG}"))]


def _named(base: BaseModel) -> str:
    return f"{base.name} ({base.revision})"
