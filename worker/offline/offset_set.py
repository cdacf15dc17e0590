"""A set of offsets as a sparse bitmap: an int set would take 60 bytes for each offset."""

from __future__ import annotations

from collections.abc import Iterator

_PIECE_BITS = 1 << 16
_PIECE_BYTES = _PIECE_BITS // 8


class OffsetSet:
    """Offsets of one partition: 8 KiB for each range of 65,536 that has at least one."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: dict[int, bytearray] = {}

    def add(self, offset: int) -> bool:
        """Add an offset; return whether it is new."""
        number, bit = divmod(offset, _PIECE_BITS)
        piece = self._pieces.get(number)
        if piece is None:
            piece = self._pieces[number] = bytearray(_PIECE_BYTES)
        place, mask = bit >> 3, 1 << (bit & 7)
        if piece[place] & mask:
            return False
        piece[place] |= mask
        return True

    def discard(self, offset: int) -> None:
        """Remove an offset, if it is there."""
        number, bit = divmod(offset, _PIECE_BITS)
        if (piece := self._pieces.get(number)) is not None:
            piece[bit >> 3] &= ~(1 << (bit & 7))

    def __contains__(self, offset: int) -> bool:
        number, bit = divmod(offset, _PIECE_BITS)
        piece = self._pieces.get(number)
        return piece is not None and bool(piece[bit >> 3] & 1 << (bit & 7))

    def __len__(self) -> int:
        return sum(int.from_bytes(piece, "little").bit_count() for piece in self._pieces.values())

    def __iter__(self) -> Iterator[int]:
        """Yield the offsets in ascending order."""
        for number in sorted(self._pieces):
            yield from _bits(number, self._pieces[number])

    def discard_before(self, offset: int) -> None:
        """Remove everything below ``offset``."""
        number, bit = divmod(offset, _PIECE_BITS)
        for below in [known for known in self._pieces if known < number]:
            del self._pieces[below]
        if (piece := self._pieces.get(number)) is not None:
            kept = int.from_bytes(piece, "little") >> bit << bit
            self._pieces[number] = bytearray(kept.to_bytes(_PIECE_BYTES, "little"))

    def update(self, other: OffsetSet) -> None:
        """Add all of ``other``."""
        for number, piece in other._pieces.items():
            mine = int.from_bytes(self._pieces.get(number, b""), "little")
            both = mine | int.from_bytes(piece, "little")
            self._pieces[number] = bytearray(both.to_bytes(_PIECE_BYTES, "little"))

    def without(self, other: OffsetSet) -> OffsetSet:
        """Return the difference of this set and ``other``."""
        found = OffsetSet()
        for number, piece in self._pieces.items():
            theirs = int.from_bytes(other._pieces.get(number, b""), "little")
            if left := int.from_bytes(piece, "little") & ~theirs:
                found._pieces[number] = bytearray(left.to_bytes(_PIECE_BYTES, "little"))
        return found


def _bits(number: int, piece: bytearray) -> Iterator[int]:
    for place, byte in enumerate(piece):
        if byte:
            first = number * _PIECE_BITS + place * 8
            yield from (first + bit for bit in range(8) if byte & 1 << bit)
