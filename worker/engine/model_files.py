"""Find an adapter's base and tokenizer by the digests of their files. Only this file imports
``tokenizers``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from worker.contract import (
    AdapterRefused,
    BaseModel,
    Encoders,
    Manifest,
    added_token_ids,
    all_added_tokens_special,
    plain_encode,
    tokenizer_directory,
    verify_base,
)
from worker.errors import SettingsError

_CONFIG = "config.json"


def load_encoders(base_dir: Path) -> Encoders:
    """Load ``tokenizer.json`` twice: once recognizing control tokens, once reading them as plain
    text. Raises AdapterRefused for a missing or unreadable file, and SettingsError without the
    ``tokenizers`` library."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SettingsError(
            "no tokenizer library: in the checkout, pip install -e '.[cpu]' or '.[gpu]'"
        ) from error

    path = base_dir / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise AdapterRefused(path, "missing: a base needs a fast tokenizer") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterRefused(path, f"cannot be read: {error}") from error
    try:
        control = _bare(Tokenizer.from_str(text))
        plain = _bare(Tokenizer.from_str(all_added_tokens_special(text)))
        control_ids = added_token_ids(text)
    except Exception as error:  # the library raises no narrower one
        raise AdapterRefused(
            path, f"not a tokenizer that this version can read: {error}"
        ) from error
    plain.encode_special_tokens = True

    def encode_control(part: str) -> Sequence[int]:
        ids: list[int] = control.encode(part, add_special_tokens=False).ids
        return ids

    return Encoders(encode_control, plain_encode(plain, control_ids), control_ids)


def _bare(tokenizer: Any) -> Any:
    # The file may configure both; the contract shortens messages itself, and nothing is padded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Bases:
    """The bases and tokenizers that adapters need in addition to their own files: several base
    models, found by the digests of their files.

    ``directories`` are bases, or folders of bases. A base's weights are read once, when an adapter
    first needs it; ``verify_weights=False`` compares only their sizes. Thread-safe.
    """

    def __init__(self, directories: Sequence[Path], *, verify_weights: bool = True) -> None:
        self._directories = tuple(directories)
        self._verify_weights = verify_weights
        self._verified: list[tuple[Path, BaseModel]] = []
        self._encoders: dict[str, Encoders] = {}

    def encoders(self, adapter: Path, manifest: Manifest) -> Encoders:
        """Return the tokenizer of a verified adapter, and verify its base if it needs one. Raises
        AdapterRefused."""
        base = self.find(adapter, manifest) if manifest.needs_base else None
        digest = manifest.base.tokenizer_sha256
        if digest not in self._encoders:
            self._encoders[digest] = load_encoders(tokenizer_directory(adapter, manifest, base))
        return self._encoders[digest]

    def find(self, adapter: Path, manifest: Manifest) -> Path:
        """Return the verified directory of an adapter's base. Raises AdapterRefused; with only one
        candidate the error says how it differs."""
        wanted = manifest.base
        for directory, base in self._verified:
            if same_files(base, wanted):
                return directory
        # Not cached: a base may be added to the folder while the worker runs.
        candidates = list(self._candidates())
        if not candidates:
            raise AdapterRefused(
                adapter, f"needs its base, {_named(wanted)}: name its directory in model.base"
            )
        fitting = candidates if len(candidates) == 1 else list(_fitting(candidates, wanted))
        if not fitting:
            raise AdapterRefused(
                adapter,
                f"was trained on {_named(wanted)}, which is not among the {len(candidates)} base "
                "models in model.base and model.bases: add its directory there",
            )
        verify_base(fitting[0], wanted, weights=self._verify_weights)
        self._verified.append((fitting[0], wanted))
        return fitting[0]

    def _candidates(self) -> Iterator[Path]:
        for directory in self._directories:
            inner = [] if (directory / _CONFIG).is_file() else _bases_in(directory)
            yield from inner or [directory]


def same_files(base: BaseModel, other: BaseModel) -> bool:
    """Whether two bases have the same files; name and revision are only for display."""
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
