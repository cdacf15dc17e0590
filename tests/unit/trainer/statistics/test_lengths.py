"""Lengths are counted into bins that double, none lost."""

from __future__ import annotations

from trainer.statistics.lengths import LengthBin, length_bins


def test_every_length_is_in_one_bin() -> None:
    """Ends are 1, 2, 3, 4, 6, 8 and so on, from the first that is needed to the last."""
    bins = length_bins([3, 4, 5, 6, 12, 13], cut=(4,))
    assert bins == [
        LengthBin(2, 3, 1),
        LengthBin(3, 4, 1),
        LengthBin(4, 6, 2),
        LengthBin(6, 8, 0),
        LengthBin(8, 12, 1, 1),
        LengthBin(12, 16, 1),
    ]
    assert length_bins([]) == []
    assert length_bins([0, 1]) == [LengthBin(0, 1, 2)]
    many = length_bins(range(1, 3000))
    assert sum(each.count for each in many) == 2999
    assert [each.upto for each in many[:7]] == [1, 2, 3, 4, 6, 8, 12]
