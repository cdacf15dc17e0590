"""The base's chat template, rendered on a day that never changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from trainer.errors import BadInput

PROMPT_DATE = date(2026, 1, 1)
"""The day that a chat template prints which prints today's date: any will do, as long as it
stays."""


class Renderer:
    """A chat template as a function of a chat (role, content), ready for an answer.

    Some templates print today's date (those of Llama 3.2 and SmolLM3). An adapter is trained over
    days, resumed, and served for months, on one text: the template takes every day for
    ``PROMPT_DATE``.
    """

    def __init__(self, apply: Callable[..., Any]) -> None:
        self._apply = apply
        self._asked = False

    @property
    def printed_date(self) -> str | None:
        """The day that stands in what was rendered, as ``2026-01-01``; None where the template
        prints none."""
        return PROMPT_DATE.isoformat() if self._asked else None

    def __call__(self, chat: list[dict[str, str]]) -> str:
        """Return the text. Raises ValueError where the template refuses the chat."""
        try:
            text = self._apply(
                chat, tokenize=False, add_generation_prompt=True, strftime_now=self._strftime
            )
        except TemplateError as error:
            raise ValueError(f"the chat template refuses this chat: {error}") from error
        return str(text)

    def _strftime(self, form: str) -> str:
        """Stands for transformers' function of that name, which reads the clock."""
        self._asked = True
        return datetime.combine(PROMPT_DATE, time()).strftime(form)


def load_renderer(base: Path) -> Renderer:
    """Return a base's chat template. Raises BadInput when it has none."""
    from transformers import AutoTokenizer  # takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{base}: cannot load the base's tokenizer: {error}") from error
    if not tokenizer.chat_template:
        raise BadInput(f"{base}: the base has no chat template; use an instruct model")
    return Renderer(tokenizer.apply_chat_template)
