"""The encoding of a text file, and text that was read in a wrong encoding before it came here.

Standard library at import. ``charset_normalizer`` and ``ftfy`` (the extra ``tables``) are loaded
for the first file or cell that needs them: neither is needed for a clean UTF-8 file in ASCII.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TextIO

Opener = Callable[[], BinaryIO]
"""Opens the file from its start; called once for each pass over it."""

_CHUNK = 1 << 20
_BOMS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What spreadsheets and ticket systems write. Without the list, German in cp1252 is taken for one of
# the rare tables of Windows, DOS and Mac that differ from it in a few characters.
_LIKELY = (
    *("cp1252", "cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1251", "cp1250", "cp1254"),
    *("cp1253", "cp1255", "cp1256", "cp1257", "cp874", "koi8_r", "mac_roman", "cp850", "cp437"),
)
# Rare, and nearly equal to cp1252 on French or German with few accents.
_RARE = dict.fromkeys(("cp1250", "cp1257", "mac_roman", "cp850", "cp437"), 0.1)
_SAMPLE_BYTES = 1 << 16
_ESCAPED = re.compile("[\udc80-\udcff]")
_ABOVE_ASCII = re.compile("[^\x00-\x7f\udc80-\udcff]")
_CP1252 = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}


class EncodingError(Exception):
    """A file has no encoding that fits; one line with the place and the fix."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """``name`` is Python's. ``how`` says why it was chosen: ``given``, ``mark`` (a byte order
    mark), ``valid`` (UTF-8 throughout), ``zeros`` (UTF-16 by its zero bytes), ``detected``, or
    ``mixed`` (UTF-8, with other bytes in some lines, which are read as cp1252)."""

    name: str
    how: str

    @property
    def words(self) -> str:
        """The encoding as it is shown."""
        if self.how == "mixed":
            return "utf-8 with lines in cp1252"
        return f"{self.name} (detected)" if self.how == "detected" else self.name

    def open(self, raw: BinaryIO, newline: str = "") -> TextIO:
        """Return the file as text, without its byte order mark; of a mixed file the foreign bytes
        are surrogates, for ``join_mixed``."""
        errors = "surrogateescape" if self.how == "mixed" else "strict"
        name = "utf-8-sig" if self.name == "utf-8" else self.name
        return io.TextIOWrapper(raw, encoding=name, errors=errors, newline=newline)


def join_mixed(text: str) -> str:
    """Return a line of a mixed file with its foreign bytes read as cp1252."""
    return text if text.isascii() else text.translate(_CP1252)


def find_encoding(opener: Opener, name: str, given: str | None = None) -> Encoding:
    """Return a file's encoding, in time linear in its size. ``name`` is for errors, ``given`` is
    the user's choice. Raises EncodingError if ``given`` does not fit."""
    if given is not None:
        return _check_given(opener, name, given)
    with opener() as file:
        head = file.read(4096)
    for mark, encoding in _BOMS:
        if head.startswith(mark) and (encoding == "utf-8" or _fits(opener, encoding)):
            return Encoding(encoding, "mark" if _fits(opener, encoding) else "mixed")
    if (zeros := _by_zeros(head)) and _fits(opener, zeros):
        return Encoding(zeros, "zeros")
    if _fits(opener, "utf-8"):
        return Encoding("utf-8", "valid")
    if _is_mostly_utf8(opener):
        return Encoding("utf-8", "mixed")
    return Encoding(_detect(opener, name), "detected")


def _check_given(opener: Opener, name: str, given: str) -> Encoding:
    try:
        "".encode(given)
    except (LookupError, UnicodeError) as error:
        raise EncodingError(
            f"--encoding {given!r}: no such encoding: use one of Python's, such as cp1252"
        ) from error
    if (place := _misfit(opener, given)) is None:
        return Encoding(codecs.lookup(given).name.removesuffix("-sig"), "given")
    at, line, byte = place
    raise EncodingError(
        f"{name}:{line}: byte {at} (0x{byte:02x}) is not {given}: name the right --encoding, or "
        "leave the option out and it is detected"
    )


def _fits(opener: Opener, encoding: str) -> bool:
    return _misfit(opener, encoding) is None


def _misfit(opener: Opener, encoding: str) -> tuple[int, int, int] | None:
    """Return offset, line and value of the first byte that does not fit; None if all do."""
    decoder = codecs.getincrementaldecoder(encoding)()
    done = lines = kept = 0
    with opener() as file:
        while True:
            chunk = file.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The decoder may hold the end of the last chunk: its bytes come first.
                at = max(done - kept + error.start, 0)
                line = lines + chunk.count(b"\n", 0, max(error.start - kept, 0)) + 1
                return at, line, error.object[error.start]
            if not chunk:
                return None
            kept = len(decoder.getstate()[0])
            done += len(chunk)
            lines += chunk.count(b"\n")


def _by_zeros(head: bytes) -> str | None:
    """Return UTF-16 in the order that puts zero bytes where ``head`` has them: half of the bytes of
    text in Latin letters."""
    half = len(head) // 2
    if half < 2:
        return None
    even, odd = head[0::2].count(0) / half, head[1::2].count(0) / half
    if odd > 0.4 and even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 and odd < 0.1 else None


def _is_mostly_utf8(opener: Opener) -> bool:
    """Return whether more characters are UTF-8 than bytes are not. In other encodings few pairs of
    bytes happen to be UTF-8."""
    good = bad = 0
    with opener() as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        while chunk := text.read(_CHUNK):
            bad += len(_ESCAPED.findall(chunk))
            good += len(_ABOVE_ASCII.findall(chunk))
    return good > bad


def _detect(opener: Opener, name: str) -> str:
    if find_spec("charset_normalizer") is None:
        raise EncodingError(
            f"{name}: is not UTF-8, and detecting its encoding needs charset-normalizer: "
            "in the checkout, pip install -e '.[tables]', or name the --encoding (often cp1252)"
        )
    from charset_normalizer import from_bytes

    found = from_bytes(_sample(opener), cp_isolation=list(_LIKELY))
    # Equal ones are decided by how common they are: the order of _LIKELY.
    ranked = sorted(
        (round(match.chaos - match.coherence + _RARE.get(encoding, 0), 2), place)
        for match in found
        for place, encoding in enumerate(_LIKELY)
        if encoding in match.could_be_from_charset
    )
    for encoding in (*(_LIKELY[place] for _, place in ranked), *_LIKELY):
        if _fits(opener, encoding):
            return encoding
    return "latin-1"


def _sample(opener: Opener) -> bytes:
    """Return the first lines that are not ASCII: of a large file the beginning may say nothing."""
    found: list[bytes] = []
    size = 0
    with opener() as file:
        while size < _SAMPLE_BYTES and (line := file.readline(_SAMPLE_BYTES)):
            if not line.isascii():
                found.append(line)
                size += len(line)
    return b"".join(found)


_SHORT_CHARS = 60

# ftfy's test takes 65 µs for a message. Western European text needs none: a garbled character is
# a letter and one of the punctuation marks after it, or has a character that is neither.
_MARKS = "\u00a0¡§«°´·»¿‘’‚“”„–—…€"
_SUSPECT = re.compile(rf"[^\x00-\x7fÀÁÄ-ÿ{_MARKS}]|[^\x00-\x7f][{_MARKS}]|‚[À-ÿ]")


@cache
def make_repairer() -> Callable[[str], tuple[str, bool]]:
    """Return a function that repairs mojibake (UTF-8 that was once read as another encoding, such
    as ``BÃ¤cker``): it returns the text, and whether it looks garbled still.

    Raises EncodingError with the command that installs ftfy, at the first text that is not ASCII.
    """
    if find_spec("ftfy") is None:
        raise EncodingError(
            "text that is not ASCII needs ftfy: in the checkout, pip install -e '.[tables]'"
        )
    import ftfy
    from ftfy.badness import is_bad

    def repair(text: str) -> tuple[str, bool]:
        if _SUSPECT.search(text) is None:
            return text, False
        if not is_bad(text):
            return text, "\ufffd" in text
        fixed = ftfy.fix_encoding(text)
        return fixed, "\ufffd" in fixed or is_bad(fixed)

    # Labels come again and again, and ftfy takes 50 µs for a garbled one.
    short = lru_cache(maxsize=4096)(repair)
    return lambda text: short(text) if len(text) <= _SHORT_CHARS else repair(text)


def decoded_lines(encoding: Encoding, opener: Opener, newline: str = "") -> Iterator[str]:
    """Yield the lines of a file with their ends; the file is open while they are read."""
    with opener() as raw, encoding.open(raw, newline) as text:
        yield from text


def decoded_file(path: Path) -> Iterator[str]:
    """Yield the lines of a file in the encoding that is found. Raises EncodingError, OSError."""

    def opener() -> BinaryIO:
        return path.open("rb")

    yield from decoded_lines(find_encoding(opener, path.name), opener)
