"""The page about a proposal: publish it as a canary?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.report import numbers
from trainer.report.bars import span
from trainer.report.records import Head, Section, write_page
from trainer.statistics.metrics import wilson
from worker.contract.exchange import CHANGES, Figure, Proposal

PAGE = "proposal.html"
_TONES = {"publish": "good", "not_worth_it": "warn", "refused": "bad"}


def write_proposal_page(out: Path, proposal: Proposal) -> None:
    """Write the page. It holds figures and labels, and no message."""
    sections = [_verdict(proposal), _figures(proposal), _changes(proposal), _gate(proposal)]
    current = proposal.current
    facts = [
        ("proposed", proposal.adapter.name, numbers.short(proposal.adapter.digest)),
        ("made", numbers.moment(proposal.created_at), ""),
    ]
    if current is not None:
        facts.insert(1, ("in service", current.name, numbers.short(current.digest)))
    write_page(out, Head("proposal", proposal.dataset_name, tuple(facts)), sections)


def _verdict(proposal: Proposal) -> Section:
    return Section(
        "proposal",
        "Publish it as a canary?",
        {
            "headline": proposal.headline,
            "tone": _TONES[proposal.verdict],
            "reasons_for": proposal.reasons_for,
            "reasons_against": proposal.reasons_against,
            "share": numbers.percent(proposal.canary_share),
            "may": proposal.verdict != "refused",
        },
    )


def _figures(proposal: Proposal) -> Section:
    rows = [_row(figure) for figure in proposal.figures]
    return Section("proposal_figures", "Beside the adapter in service", {"rows": rows})


def _row(figure: Figure) -> dict[str, Any]:
    def bounded(share: float) -> dict[str, Any]:
        low, high = wilson(round(share * figure.messages), figure.messages)
        return {"share": numbers.percent(share), "bar": span(low, high, share)}

    difference = "none to tell"
    if figure.difference is not None and figure.low is not None and figure.high is not None:
        difference = (
            f"{100 * figure.difference:+.1f} points ({100 * figure.low:+.1f} to "
            f"{100 * figure.high:+.1f})"
        )
    return {
        "name": figure.name,
        "messages": numbers.count(figure.messages),
        "proposed": bounded(figure.proposed),
        "current": None if figure.current is None else bounded(figure.current),
        "difference": difference,
    }


def _changes(proposal: Proposal) -> Section:
    rows = [
        (CHANGES.get(name, name.replace("_", " ")), numbers.count(count))
        for name, count in proposal.changes.items()
        if count
    ]
    facts = {"rows": rows, "dataset": proposal.dataset, "before": proposal.dataset_before}
    return Section("proposal_changes", "What is new in the data", facts)


def _gate(proposal: Proposal) -> Section:
    rows = [
        {
            "name": row.name,
            "wanted": row.wanted,
            "found": row.found,
            "passed": row.passed,
            "bounds": None,
        }
        for row in proposal.gate
    ]
    failed = [row for row in rows if not row["passed"]]
    passed = [row for row in rows if row["passed"]]
    facts = {"failed": failed, "passed": passed, "all": len(rows)}
    return Section("proposal_gate", "What the gate says", facts)
