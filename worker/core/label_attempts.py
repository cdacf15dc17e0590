"""Whether a message looks as if it tries to choose its label.

A rule for a metric, so that an operator sees a wave of such messages. It decides nothing: models
are trained not to follow such sentences (``trainer/steering``). It finds half of the sentences that
the trainer measures with, and 2 of the sample shop's 4,664 messages (``tests/unit/core/
test_label_attempts.py`` measures both).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from worker.contract.taxonomy import spellings

_READ = 10_000
"""Characters read at each end of a message; a model reads less."""

_CONTROL = re.compile(
    r"<\||\[/?inst\]|</s>|\[(?:sep|cls)\]|<start_of_turn>|###\s?\w{1,20}:"
    r"|\b(?:assistant|system|user|developer|human|ai):"
)
"""Control tokens of chat templates, and the headings of forged turns."""

_FILING = (
    r"\b(?:categor|classif|label|queue|rout(?:e|ing)|triage|tag(?:s|ged)?\b|ticket type|department"
    r"|intent|kategor|catégor)"
)
"""The beginnings of words for filing, in several languages."""


def make_attempt_rule(labels: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a text has a control token, a label's technical name
    (``order_change``), or a label's name near a word for filing. Linear in the text's length."""
    forms = {form.strip('"').casefold() for name in labels for form in spellings(name)}
    label = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    near = re.compile(rf"{_FILING}.{{0,40}}?(?:{label})|(?:{label}).{{0,25}}?{_FILING}", re.DOTALL)
    technical = [name.casefold() for name in labels if re.search(r"\w[_-]\w", name)]

    def is_attempt(text: str) -> bool:
        if len(text) > 2 * _READ:
            text = text[:_READ] + text[-_READ:]
        text = text.casefold()
        return bool(
            _CONTROL.search(text) or near.search(text) or any(name in text for name in technical)
        )

    return is_attempt
