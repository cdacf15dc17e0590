"""The page of a proposal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer import facts, numbers
from trainer.artifacts.evaluation import TaughtFigures
from trainer.facts import Table
from trainer.report.page import Block, Drawn, Head, Point, Section, Titled, small, write_page
from trainer.report.verdict import GateRow, gate_rows
from worker.contract.exchange import CHANGES, Figure, Proposal

PAGE = "proposal.html"
_TONES = {"publish": "good", "not_worth_it": "warn", "refused": "bad"}


def write_proposal_page(out: Path, proposal: Proposal, taught: TaughtFigures | None) -> None:
    """Write the page, with figures and labels and without messages. ``taught`` are the proposed
    adapter's on the earlier hold-out, if a teacher labelled."""
    figures = _figures(proposal, taught)
    sections = [_verdict(proposal), figures, _changes(proposal), _gate(proposal)]
    current = proposal.current
    heads = [
        ("proposed", proposal.adapter.name, numbers.short(proposal.adapter.digest)),
        ("made", numbers.moment(proposal.created_at), ""),
    ]
    if current is not None:
        heads.insert(1, ("in service", current.name, numbers.short(current.digest)))
    write_page(out, Head("proposal", proposal.dataset_name, tuple(heads)), sections)


def _verdict(proposal: Proposal) -> Section:
    headline = Point(_TONES[proposal.verdict], proposal.headline, "")
    if proposal.verdict == "refused":
        how = (
            "It cannot be published from here. To overrule the gate, use `clerk-trainer publish "
            "RUN --store STORE --force --reason TEXT`; the reason is recorded."
        )
    else:
        how = (
            "You decide, at the desk or with `clerk-trainer propose --store STORE --out DIR "
            f"--decided FILE`. As a canary it gets {numbers.percent(proposal.canary_share)} of the "
            "keys. Workers stop it if it sends more to review; `clerk-trainer rollback --store "
            "STORE --reason TEXT` ends it at once."
        )
    return Section(
        "proposal",
        "Publish it as a canary?",
        [
            Drawn("points", {"points": [headline]}),
            Titled("For it", _reasons("good", proposal.reasons_for)),
            Titled("Against it", _reasons("warn", proposal.reasons_against)),
            small(how),
        ],
    )


def _reasons(tone: str, reasons: Sequence[str]) -> Block:
    if not reasons:
        return "Nothing."
    return Drawn("points", {"points": [Point(tone, reason, "") for reason in reasons]})


def _figures(proposal: Proposal, taught: TaughtFigures | None) -> Section:
    rows = [_row(figure) for figure in proposal.figures]
    columns = ("figure", "proposed", "in service", "messages", "difference (95%)")
    about = (
        "Both adapters answered the same messages; the interval of the difference is Tango's, for "
        "paired answers, in which messages that belong together count as fewer."
    )
    title = "Next to the adapter in service"
    blocks: list[Block] = [Table(columns, rows, words=3), small(about)]
    if taught is not None:
        what = "The proposed adapter, its teacher, and people, on the earlier hold-out"
        blocks.append(Titled(what, list(facts.taught(taught))))
    return Section("proposal_figures", title, blocks)


def _row(figure: Figure) -> tuple[str, ...]:
    # Without an interval of each share: two that overlap say nothing about paired answers.
    difference = "none to tell"
    if figure.difference is not None and figure.low is not None and figure.high is not None:
        bounds = numbers.points_interval((figure.low, figure.high))
        difference = f"{numbers.points(figure.difference)} ({bounds})"
    return (
        figure.name,
        numbers.percent(figure.proposed),
        "none" if figure.current is None else numbers.percent(figure.current),
        numbers.count(figure.messages),
        difference,
    )


def _changes(proposal: Proposal) -> Section:
    rows = [
        (CHANGES.get(name, name.replace("_", " ")), numbers.count(count))
        for name, count in proposal.changes.items()
        if count
    ]
    made = f", made of {proposal.dataset_before}" if proposal.dataset_before else ""
    told = (
        f"Dataset {proposal.dataset}{made}. The hold-out only gains messages that were drawn at "
        "random, and corrections by an audit."
    )
    blocks: list[Block] = [Table(("what", "messages"), rows), small(told)]
    return Section("proposal_changes", "What is new in the data", blocks)


def _gate(proposal: Proposal) -> Section:
    rows = [
        GateRow(row.name, row.wanted, row.found, "pass" if row.passed else "FAIL")
        for row in proposal.gate
    ]
    failed = sum(not row.passed for row in rows)
    told = (
        f"{failed} of {len(rows)} criteria not met."
        if failed
        else (f"Each of its {len(rows)} criteria is met.")
    )
    told += (
        " Judged on the earlier dataset's hold-out, where the adapter in service was evaluated too."
    )
    return Section("proposal_gate", "What the gate says", [told, *gate_rows(rows)])
