"""Number formats shared by report, terminal and model card, and any JSON as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NONE = "—"
_MINUS = "\N{MINUS SIGN}"
_MOST_VALUES = 12


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share (0 to 1) as a percentage."""
    return NONE if share is None else f"{share:.{digits}%}"


def sureness(confidence: float) -> str:
    """Write a confidence; below 1 it is never written as 100.0%."""
    return "> 99.9%" if 0.9995 <= confidence < 1 else percent(confidence)


def interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of shares: ``94.1% to 96.3%``."""
    return NONE if bounds is None else f"{bounds[0]:.1%} to {bounds[1]:.1%}"


def points(difference: float | None) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    return NONE if difference is None else f"{signed(100 * difference, 1)} points"


def unsigned(share: float) -> str:
    """Write a positive difference of two shares in percentage points, without a sign."""
    return points(share).removeprefix("+")


def points_interval(bounds: Sequence[float] | None) -> str:
    """Write an interval of differences in percentage points."""
    if bounds is None:
        return NONE
    return f"{signed(100 * bounds[0], 1)} to {signed(100 * bounds[1], 1)}"


def signed(value: float, digits: int) -> str:
    """Write a number with + or a true minus; nothing before a zero."""
    rounded = f"{abs(value):.{digits}f}"
    if float(rounded) == 0:
        return rounded
    return f"{'+' if value > 0 else _MINUS}{rounded}"


def count(number: float | None) -> str:
    """Write a whole number with thousands separated."""
    return NONE if number is None else f"{number:,.0f}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 message``, ``2,000 messages``."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def times(number: int) -> str:
    """Write how often something happened."""
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{count(number)} times")


def decimal(value: float | None, digits: int = 3) -> str:
    """Write a plain figure (a loss, an F1) with fixed decimals."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """Write a figure of any size with ``digits`` significant digits."""
    if value is None:
        return NONE
    if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}".replace("-", _MINUS)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace("-", _MINUS)
    return f"{value:.{digits}g}".replace("-", _MINUS)


def probability(p: float | None) -> str:
    """Write a p-value; below 0.001 as ``< 0.001``."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def money(amount: float | None, digits: int = 2) -> str:
    """Write an amount of money without its currency."""
    return NONE if amount is None else f"{amount:,.{digits}f}".replace("-", _MINUS)


def duration(seconds: float | None) -> str:
    """Write a time span in its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 100:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def size(number: float | None) -> str:
    """Write a count of bytes in powers of a thousand."""
    if number is None:
        return NONE
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def moment(at: str | None) -> str:
    """Write a timestamp (ISO 8601, UTC) in a readable form."""
    return NONE if not at else at.replace("T", " ").replace("Z", " UTC")


def short(digest: str | None) -> str:
    """Write the first twelve characters of a digest."""
    return NONE if not digest else digest.removeprefix("sha256:")[:12]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, written value) of every leaf. A list of plain values is one leaf; a list
    of objects is only counted."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, _listed(value)
    else:
        yield name, written(value)


def written(value: Any) -> str:
    """Return a plain JSON value in a readable form."""
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else count(value)
    if isinstance(value, list | tuple):
        return _listed(value)
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return count(value)
        return significant(value, 4)
    return str(value)


def _listed(values: list[Any] | tuple[Any, ...]) -> str:
    if not values:
        return "none"
    if any(isinstance(value, Mapping | list | tuple) for value in values):
        return counted(len(values), "entry", "entries")
    shown = ", ".join(map(written, values[:_MOST_VALUES]))
    rest = len(values) - _MOST_VALUES
    return f"{shown} and {rest} more" if rest > 0 else shown


def of_100(share: float) -> str:
    """Return a share as so many in 100, never rounded to all or none."""
    number = 100 * share
    if 0 < number < 1 or 99 < number < 100:
        return (
            f"{number:.1f}" if 0.05 <= number <= 99.95 else ("under 0.1" if number < 1 else "99.9")
        )
    return f"{number:.0f}"
