"""The base's tokenizer as the contract wants it. The only file that imports tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.contract import AdapterRefused, Encoders, added_token_ids, all_added_tokens_special
from worker.contract.prompt import Encode
from worker.errors import SettingsError


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
