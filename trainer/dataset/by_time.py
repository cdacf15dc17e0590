"""The split by time: the last part is held out, the one before it is for validation.

What serves is trained on the past and answers the future; a random split asks it about days that
it was trained on, and says too much good of it where messages change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from trainer.dataset.folder import HOLDOUT, TRAIN, VALIDATION, Row
from trainer.errors import BadInput

NEAR_HOLDOUT = "left out, near to the hold-out"
"""Where a message goes that is near to one of the hold-out, or of its group, and may not be in it:
into no split."""

NEAR_VALIDATION = "left out, near to validation"
"""The same of validation."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The first moment of validation and the first of the hold-out, in UTC."""

    validation: datetime
    holdout: datetime

    def side_of(self, moment: datetime) -> str:
        """Return the split that a moment falls into."""
        if moment >= self.holdout:
            return HOLDOUT
        return VALIDATION if moment >= self.validation else TRAIN


def refuse_mixed(rows: Sequence[Row]) -> None:
    """Raise BadInput where some times have an offset from UTC and others have none: they have no
    order."""
    aware = next((row for row in rows if row.time and row.time.tzinfo), None)
    naive = next((row for row in rows if row.time and not row.time.tzinfo), None)
    if aware and naive:
        raise BadInput(
            f"{aware.where} has a time with an offset from UTC and {naive.where} one without: "
            "write all of them with one, such as 2024-05-06T07:08:09Z"
        )


def moment(row: Row) -> datetime:
    """Return a row's time in UTC; one without an offset is taken for UTC."""
    assert row.time is not None
    return row.time.astimezone(UTC) if row.time.tzinfo else row.time.replace(tzinfo=UTC)


def latest_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, the latest first: of exact copies the latest stands for all."""
    return sorted(rows, key=lambda row: (-moment(row).timestamp(), row.id))


def latest_times(rows: Sequence[Row]) -> dict[int, datetime]:
    """Return key -> when the message came last."""
    times: dict[int, datetime] = {}
    for row in rows:
        times[row.key] = max(moment(row), times.get(row.key, moment(row)))
    return times


def choose_cuts(
    times: Sequence[datetime], *, validation_share: float, holdout_share: float
) -> Cuts:
    """Return the cuts that come nearest to the shares; messages of one moment are never parted.

    Raises BadInput where there are fewer than three moments, or where so many messages have the
    same that a part would be less than half or more than twice its share.
    """
    moments = sorted(set(times))
    if len(moments) < 3:
        raise BadInput(
            f"the rows have {len(moments)} different times, and a split by time needs three at "
            "least, in fact many: is this the time at which a message came?"
        )
    order = sorted(times)
    at_holdout = _nearest(moments[2:], order, len(order) * (1 - holdout_share))
    before = [when for when in moments[1:] if when < at_holdout]
    at_validation = _nearest(before, order, len(order) * (1 - holdout_share - validation_share))
    cuts = Cuts(at_validation, at_holdout)
    for side, share in ((HOLDOUT, holdout_share), (VALIDATION, validation_share)):
        held = sum(cuts.side_of(when) == side for when in order)
        wanted = max(1.0, len(order) * share)
        if not wanted / 2 <= held <= wanted * 2:
            raise BadInput(
                f"by time the {side} part would have {held} of {len(order)} messages where "
                f"{wanted:.0f} are asked for: too many have the same time ({len(moments)} "
                "different ones): give times to the second, or another --holdout-share and "
                "--validation-share"
            )
    return cuts


def assign_by_time(
    units: Sequence[Sequence[int]], times: Mapping[int, datetime], cuts: Cuts
) -> dict[int, str]:
    """Return key -> split. A unit is on one side alone, the latest that one of its keys is on;
    its earlier ones are left out (``NEAR_HOLDOUT``, ``NEAR_VALIDATION``), for what is held out
    has to be what came last, and nobody may have learnt from it before."""
    left_out = {HOLDOUT: NEAR_HOLDOUT, VALIDATION: NEAR_VALIDATION}
    splits: dict[int, str] = {}
    for unit in units:
        sides = {key: cuts.side_of(times[key]) for key in unit}
        latest = next(side for side in (HOLDOUT, VALIDATION, TRAIN) if side in sides.values())
        for key, side in sides.items():
            splits[key] = side if side == latest else left_out[latest]
    return splits


def _nearest(moments: Sequence[datetime], order: Sequence[datetime], wanted: float) -> datetime:
    """Return the moment before which most nearly ``wanted`` of the times lie."""
    # order is sorted, and so are the moments: one walk over both.
    best, missed, before = moments[-1], float("inf"), 0
    for candidate in moments:
        while order[before] < candidate:
            before += 1
        if abs(before - wanted) < missed:
            best, missed = candidate, abs(before - wanted)
    return best
