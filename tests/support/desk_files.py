"""Files of the trainer that the desk reads: tasks, advice, a proposal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from worker.contract.codec import encode
from worker.contract.exchange import (
    AdapterName,
    Advice,
    AdviceMessage,
    Figure,
    Finding,
    GateRow,
    Neighbour,
    Proposal,
    Purpose,
    Task,
    task_id,
)
from worker.contract.text import message_sha256

DATASET = "d" * 64
_MADE_AT = "2026-01-05T09:00:00Z"


def make_task(text: str, purpose: Purpose = "check", **changes: Any) -> Task:
    """A task about this message; of a check with a label that is doubted."""
    sha256 = message_sha256(text)
    values: dict[str, Any] = {
        "schema": "tasks/1",
        "id": task_id(DATASET, purpose, sha256),
        "message_id": f"row-{sha256[:6]}",
        "message_sha256": sha256,
        "text": text,
        "purpose": purpose,
        "dataset": DATASET,
        "batch": f"{purpose} of monday",
    }
    if purpose == "check":
        values |= {
            "label": "refund",
            "label_source": "export",
            "suggested": "delivery",
            "confidence": 0.9,
            "scores": {"delivery": 0.9, "refund": 0.1},
            "reasons": ("models_disagree",),
            "neighbours": (Neighbour("my box never came", "delivery", "row-near"),),
        }
    if purpose == "learn":
        values |= {"suggested": "payment", "confidence": 0.4, "reasons": ("uncertain",)}
    return Task(**(values | changes))


def task_file(tasks: Iterable[Task]) -> str:
    """The text of a file with these tasks."""
    return "".join(f"{json.dumps(encode(task))}\n" for task in tasks)


def make_advice(*texts: str | None, **changes: Any) -> Advice:
    """Advice with one finding that rests on these messages; None: without its text."""
    messages = tuple(
        AdviceMessage(f"row-{n}", message_sha256(text or ""), "refund", text)
        for n, text in enumerate(texts)
    )
    finding = Finding(
        kind="confused",
        labels=("refund", "payment"),
        title="People confuse refund and payment.",
        evidence="Two people disagreed on 9 of 31 messages.",
        advice="Say in the guideline where the line between them is.",
        gain="About 2 points of accuracy.",
        cost="An hour.",
        figures={"disagreements": 9.0, "messages": 31.0},
        messages=messages,
        p_value=0.004,
    )
    values: dict[str, Any] = {
        "schema": "advice/1",
        "created_at": _MADE_AT,
        "dataset_name": "shop",
        "dataset": DATASET,
        "taxonomy": "e" * 64,
        "guideline": None,
        "decisions": 120,
        "doubly": 31,
        "texts": True,
        "findings": (finding,),
    }
    return Advice(**(values | changes))


def make_proposal(**changes: Any) -> Proposal:
    """A proposal that is worth a canary."""
    values: dict[str, Any] = {
        "schema": "proposal/1",
        "id": "1" * 32,
        "created_at": _MADE_AT,
        "verdict": "publish",
        "headline": "Yes: it is right more often, and no label loses.",
        "reasons_for": ("It is 2.1 points better on the old hold-out.",),
        "reasons_against": ("Only 340 audited messages stand behind it.",),
        "adapter": AdapterName("shop-next", "2" * 64, "encoder"),
        "current": AdapterName("shop", "3" * 64, "encoder"),
        "dataset_name": "shop",
        "dataset": "4" * 64,
        "dataset_before": DATASET,
        "changes": {"decisions": 412, "new_messages": 380},
        "figures": (
            Figure("old hold-out", 1200, 0.952, 0.931, 0.021, 0.008, 0.034),
            Figure("audited sample", 340, 0.94, None, None, None, None),
        ),
        "gate": (GateRow("accuracy", "at least 0.90", "0.952", True),),
        "canary_share": 0.05,
    }
    return Proposal(**(values | changes))
