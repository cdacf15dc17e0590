"""Rows and labels that cannot be used, and when that is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.dataset.examples import Example
from trainer.dataset.row import Row
from trainer.dataset.settings import OnBad, PrepareSettings
from trainer.dataset.split import HOLDOUT
from trainer.errors import BadInput
from worker.contract import Taxonomy


def refuse_bad(
    cleaned: Sequence[Row], raw: Sequence[Row], settings: PrepareSettings
) -> tuple[list[Row], dict[str, int]]:
    """Drop the rows whose message is empty when clean, or over ``max_message_bytes`` of UTF-8 as
    it came. Return the rest and the counts; raise BadInput with the first row where the settings
    say that such a row is an error."""
    usable = []
    empty = too_long = 0
    for row, before in zip(cleaned, raw, strict=True):
        size = len(before.message.encode("utf-8", "surrogatepass"))
        if size > settings.max_message_bytes:
            if settings.too_long is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} has {size} bytes, more than "
                    f"{settings.max_message_bytes}: raise --max-message-bytes or choose "
                    "--too-long drop"
                )
            too_long += 1
        elif not row.message:
            if settings.empty is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} is empty: mend it or choose "
                    "--empty drop"
                )
            empty += 1
        else:
            usable.append(row)
    return usable, {"empty_dropped": empty, "too_long_dropped": too_long}


def refuse_small(rows: Sequence[Row], taxonomy: Taxonomy, minimum: int) -> None:
    """Raise BadInput when there is one label only, or one with too few different messages."""
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        held = f"only the label {next(iter(counts))!r}" if counts else "no usable rows"
        raise BadInput(f"the input holds {held}: a clerk needs two labels or more to choose from")
    small = [
        f"{label!r} has {counts[label]}" for label in taxonomy.names if counts[label] < minimum
    ]
    if small:
        raise BadInput(
            f"too few different messages: {', '.join(small)}; at least {minimum} a label: add "
            "examples, merge the label into another, or lower --minimum-per-label"
        )


def refuse_empty_parts(
    parts: Mapping[str, Sequence[Example]], taxonomy: Taxonomy, *, own_holdout: bool
) -> None:
    """Raise BadInput when a label is missing on a side: nothing could be learned, chosen or
    judged about it."""
    for part, examples in parts.items():
        there = {one.label for one in examples}
        missing = [label for label in taxonomy.names if label not in there]
        if missing and part == HOLDOUT and own_holdout:
            raise BadInput(
                f"the hold-out file has no usable example of {', '.join(map(repr, missing))}: a "
                "label that is never judged should not be published: add some"
            )
        if missing:
            raise BadInput(
                f"label {missing[0]!r} has no {part} example: its messages are near-duplicates of "
                "each other, or decisions took them away: add different ones, or try another --seed"
            )
