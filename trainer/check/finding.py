"""What one check found, in figures and in words for the owner of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warn", "fail", "skipped"]

_ORDER: tuple[Verdict, ...] = ("skipped", "ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """``found`` says what is so, ``advice`` what to do about it (empty where nothing is to do).
    ``figures`` is JSON; it names messages by their ids and holds no text of theirs."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "found": self.found,
            "advice": self.advice,
            "figures": dict(self.figures),
        }


def worst(findings: list[Finding]) -> Verdict:
    """Return the worst verdict; checks that were skipped count as ok."""
    return max(("ok", *(finding.verdict for finding in findings)), key=_ORDER.index)


def grade(value: float, *, warn: float, fail: float) -> Verdict:
    """Return the verdict on a value of which less is better."""
    return "fail" if value > fail else "warn" if value > warn else "ok"
