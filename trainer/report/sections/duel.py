"""The adapter against simpler methods on the same messages."""

from __future__ import annotations

from trainer.report import numbers
from trainer.report.read import DUEL, Run
from trainer.report.rivals import ALPHA, is_adapter
from trainer.report.section import Section, lacking
from trainer.report.sections.verdict import forest


def duel(run: Run) -> Section:
    """Return the candidates, their paired differences, and the duel's verdict."""
    title = "Against simpler methods"
    if run.duel is None or not run.duel["candidates"]:
        return lacking("duel", title, DUEL)
    candidates = sorted(run.duel["candidates"], key=lambda one: (-one["accuracy"], one["name"]))
    return Section(
        "duel",
        title,
        {
            "forest": forest(run.duel),
            "candidates": [
                (
                    is_adapter(one),
                    (
                        one["name"],
                        numbers.percent(one["accuracy"]),
                        numbers.interval(one["accuracy_interval_95"]),
                        numbers.decimal(one.get("macro_f1")),
                        numbers.duration(one.get("train_seconds")),
                        numbers.significant(one.get("messages_per_s")),
                        numbers.count(one.get("outside_labels")),
                    ),
                )
                for one in candidates
            ],
            "pairs": [
                (
                    one["p_holm"] is not None and one["p_holm"] < ALPHA,
                    (
                        f"{one['a']} less {one['b']}",
                        numbers.points(one["difference"]),
                        numbers.points_interval(one["interval_95"]),
                        numbers.count(one["a_only"]),
                        numbers.count(one["b_only"]),
                        numbers.probability(one["mcnemar_p"]),
                        numbers.probability(one["p_holm"]),
                    ),
                )
                for one in run.duel["pairs"]
            ],
            "detectable": numbers.points(
                run.duel.get("minimum_detectable_difference")
            ).removeprefix("+"),
            "verdict": _sentence(run.duel.get("verdict")),
            "recommendation": _sentence(run.duel.get("recommendation")),
        },
    )


def _sentence(value: object) -> str:
    """Return what the duel says, which may be a sentence or several."""
    if isinstance(value, list | tuple):
        return " ".join(str(one) for one in value)
    return "" if value is None else str(value)
