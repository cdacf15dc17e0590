"""The audit sample weighted back to all traffic."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LEAST = 5
"""With fewer verdicts a stratum is put together with its neighbours: a share of some three says
little, and its weight would carry all of that into the whole."""


class Stratum(NamedTuple):
    """What the traffic is counted by: the machine's label, the adapter's digest, whether the worker
    put the result in doubt (and so sent it to review)."""

    label: str
    adapter_digest: str
    doubtful: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Verdicts of one stratum: how many, how many found the machine right, and how many were
    checked, that is by a second person who agreed or by an adjudicator. ``drawn_for`` is for how
    many results the sample stands by its probabilities (the sum of 1/share)."""

    verdicts: int
    right: int
    checked: int = 0
    drawn_for: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(
            self.verdicts + other.verdicts,
            self.right + other.right,
            self.checked + other.checked,
            self.drawn_for + other.drawn_for,
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A share, and of how many independent verdicts a simple sample would know it as well."""

    value: float
    size: float


@dataclass(frozen=True, slots=True)
class _Cell:
    traffic: float
    counts: Counts


_LEVELS: tuple[Callable[[Stratum], Hashable], ...] = (
    lambda stratum: stratum,
    lambda stratum: (stratum.adapter_digest, stratum.doubtful),
    lambda stratum: stratum.doubtful,
)


def weighted_share(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int]
) -> Share | None:
    """Return the share of all traffic on which the machine was found right; None without verdicts.

    Post-stratification (Cochran, Sampling Techniques, 1977, section 5A.9): each stratum's share
    counts by its traffic. So it does not matter that the sample's share was changed within the
    time, or that one adapter's part is decided sooner than another's; what is not decided is taken
    to be as the rest of its stratum. Strata with fewer than ``LEAST`` verdicts are put together:
    the labels of an adapter, then adapters, doubtful results apart as long as can be. A stratum
    that the traffic does not know (results of a replay) counts by its probability of being drawn.

    The size is the effective one of Korn and Graubard, share * (1 - share) / variance, and at most
    the number of verdicts. In the variance each stratum's share is drawn a little towards the
    whole's, for five of five do not mean that nothing can go wrong there.
    """
    groups = _groups(_cells(sample, traffic))
    verdicts = sum(group.counts.verdicts for group in groups)
    if not verdicts:
        return None
    whole = (sum(group.counts.right for group in groups) + 0.5) / (verdicts + 1)
    total = sum(group.traffic for group in groups)
    value = drawn = variance = 0.0
    for group in groups:
        weight, counts = group.traffic / total, group.counts
        value += weight * counts.right / counts.verdicts
        share = (counts.right + 2 * whole) / (counts.verdicts + 2)
        drawn += weight * share
        variance += weight**2 * share * (1 - share) / counts.verdicts
    value = min(1.0, max(0.0, value))
    return Share(value, min(float(verdicts), drawn * (1 - drawn) / variance))


def _cells(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int]
) -> dict[Stratum, _Cell]:
    nothing = Counts(0, 0)
    found = {}
    for stratum in sorted({*sample, *traffic}):
        counts = sample.get(stratum, nothing)
        results = float(traffic.get(stratum, 0))
        if not results:
            results = max(counts.drawn_for, float(counts.verdicts))
        if results:
            found[stratum] = _Cell(max(results, float(counts.verdicts)), counts)
    return found


def _groups(cells: Mapping[Stratum, _Cell]) -> Sequence[_Cell]:
    """Put strata together until each group has verdicts enough; what is left over in the end joins
    the group of its kind that has the most traffic."""
    left = dict(cells)
    done: list[tuple[bool, _Cell]] = []
    for level in _LEVELS:
        by_key: dict[Hashable, list[Stratum]] = {}
        for stratum in left:
            by_key.setdefault(level(stratum), []).append(stratum)
        for strata in by_key.values():
            merged = _merge([left[stratum] for stratum in strata])
            if merged.counts.verdicts >= LEAST:
                done.append((strata[0].doubtful, merged))
                for stratum in strata:
                    del left[stratum]
    if not left:
        return [group for _, group in done]
    if not done:
        return [_merge(list(left.values()))]
    for stratum, cell in left.items():
        kin = [at for at, (doubtful, _) in enumerate(done) if doubtful == stratum.doubtful]
        at = max(kin or range(len(done)), key=lambda at: done[at][1].traffic)
        done[at] = (done[at][0], _merge([done[at][1], cell]))
    return [group for _, group in done]


def _merge(cells: Sequence[_Cell]) -> _Cell:
    return _Cell(
        sum(cell.traffic for cell in cells),
        sum((cell.counts for cell in cells), Counts(0, 0)),
    )
