"""A taxonomy of 77 labels, as a bank has it."""

from __future__ import annotations

import json

from worker.contract.taxonomy import Label, Taxonomy

THINGS = ("card", "loan", "top_up", "transfer", "cash", "pin", "account")
CONCERNS = (
    *("refund", "fee", "limit", "delay", "order", "loss", "theft", "close", "change", "check"),
    "other",
)
MANY = Taxonomy(
    "many",
    "1",
    "",
    tuple(
        Label(f"{thing}_{concern}", f"About thing {at}{number}.")
        for number, concern in enumerate(CONCERNS)
        for at, thing in enumerate(THINGS)
    ),
)


def as_toml(taxonomy: Taxonomy) -> str:
    """The file that has these labels."""
    about = {"name": taxonomy.name, "version": taxonomy.version}
    about["description"] = taxonomy.description
    lines = [f"{key} = {json.dumps(value)}" for key, value in about.items()]
    for label in taxonomy.labels:
        lines.append(f"[[labels]]\nname = {json.dumps(label.name)}")
        lines.append(f"description = {json.dumps(label.description)}")
    return "\n".join(lines)
