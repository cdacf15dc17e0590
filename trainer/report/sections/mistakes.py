"""Where the adapter errs: the confusion matrix, the labels, the surest mistakes."""

from __future__ import annotations

from typing import Any

from trainer.report import confusions, numbers
from trainer.report.charts.bars import bar, span
from trainer.report.charts.heat import confusion_chart
from trainer.report.read import EVALUATION, PREDICTIONS, Run
from trainer.report.section import Section, lacking
from trainer.statistics.metrics import wilson

MOST_PAIRS = 12
MOST_ERRORS = 100
AT_ONCE = 12
MOST_CHARACTERS = 2_000
_EXCERPT = 220


def confusion(run: Run) -> Section:
    """Return the confusion matrix and its reading."""
    title = "What it mixes up"
    if run.evaluation is None:
        return lacking("confusion", title, EVALUATION)
    labels, matrix = run.evaluation["labels"], run.evaluation["confusion"]
    pairs = confusions.pairs_mixed_up(labels, matrix)
    shown = [one for one in pairs if one.total > 1][:MOST_PAIRS]
    return Section(
        "confusion",
        title,
        {
            "chart": confusion_chart(labels, matrix),
            "pairs": [(one, numbers.probability(one.p)) for one in shown],
            "all_pairs": len(pairs),
            "mistakes": sum(one.total for one in pairs),
            "shown_mistakes": sum(one.total for one in shown),
            "rule": confusions.RULE,
        },
    )


def labels(run: Run) -> Section:
    """Return every label's precision, recall and F1, the weakest first."""
    title = "Label by label"
    if run.evaluation is None:
        return lacking("labels", title, EVALUATION)
    names, matrix = run.evaluation["labels"], run.evaluation["confusion"]
    rows = []
    for one in sorted(run.evaluation["per_label"], key=lambda one: (one["f1"], one["label"])):
        at = names.index(one["label"])
        hits, given = matrix[at][at], sum(row[at] for row in matrix)
        recall, precision = wilson(hits, one["support"]), wilson(hits, given)
        rows.append(
            {
                "label": one["label"],
                "support": numbers.count(one["support"]),
                "f1": numbers.decimal(one["f1"]),
                "f1_bar": bar(one["f1"], "s3"),
                "precision": numbers.percent(one["precision"]),
                "precision_span": span(*precision, one["precision"]),
                "precision_interval": numbers.interval(precision),
                "recall": numbers.percent(one["recall"]),
                "recall_span": span(*recall, one["recall"]),
                "recall_interval": numbers.interval(recall),
            }
        )
    return Section("labels", title, {"rows": rows})


def errors(run: Run) -> Section:
    """Return the wrong answers, the surest first."""
    title = "Confidently wrong"
    if not run.predictions:
        return lacking("errors", title, PREDICTIONS)
    wrong = [one for one in run.predictions if one["label"] != one["predicted"]]
    wrong.sort(key=lambda one: (-one["confidence"], str(one["id"])))
    shown = wrong[:MOST_ERRORS]
    return Section(
        "errors",
        title,
        {
            "at_once": AT_ONCE,
            "rows": [
                {
                    "id": readable(str(one["id"])),
                    "label": one["label"],
                    "predicted": one["predicted"],
                    "confidence": numbers.sureness(one["confidence"]),
                    "bar": bar(one["confidence"], "s2"),
                    "review": one.get("review"),
                    "text": _text(run, str(one["id"])),
                }
                for one in shown
            ],
            "wrong": len(wrong),
            "unseen": sum(one.get("review") is False for one in wrong),
            "knows_review": all("review" in one for one in wrong),
            "true_labels": sorted({one["label"] for one in shown}),
            "given_labels": sorted({one["predicted"] for one in shown}),
            "with_texts": run.texts is not None,
        },
    )


def readable(text: str) -> str:
    """Return a text in which every control character is seen instead of obeyed.

    C0 controls become their pictures (U+2400 on), lone surrogates and C1 controls U+FFFD: neither
    may stand in a UTF-8 page. Line breaks and tabs stay; markup is escaped by the template.
    """
    kept = []
    for character in text:
        code = ord(character)
        if code < 0x20 and character not in "\n\t":
            kept.append(chr(0x2400 + code))
        elif 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(character)
    return "".join(kept)


def _text(run: Run, name: str) -> dict[str, Any] | None:
    if run.texts is None:
        return None
    found = run.texts.get(name)
    if found is None:
        return {"start": "", "rest": "", "cut": 0, "unknown": True}
    text = readable(found)
    cut = max(0, len(text) - MOST_CHARACTERS)
    text = text[:MOST_CHARACTERS]
    if len(text) <= _EXCERPT * 1.5:
        return {"start": text, "rest": "", "cut": cut, "unknown": False}
    blank = text.rfind(" ", _EXCERPT // 2, _EXCERPT)
    at = blank + 1 if blank > 0 else _EXCERPT
    return {"start": text[:at], "rest": text[at:], "cut": cut, "unknown": False}
