"""The prompt's fixed parts, made from the base's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainer.errors import BadInput
from worker.contract import Code, Encoders, PromptSpec, Taxonomy, choose_codes
from worker.contract.text import NORMALIZATION

Render = Callable[[list[dict[str, str]]], str]
"""Chat messages (role, content) to the text the base was trained to read, ready for an answer."""

PLACEHOLDER = "<<<MESSAGE>>>"
MARKER = " [...] "

_FILLER = " ."
_FILLER_TRIES = 512
_GAPS = ("\n", "\n\n")
"""Two widths of the gap above the dots, for tokenizers in which a dot with its blank is two."""


def make_prompt(
    taxonomy: Taxonomy,
    encoders: Encoders,
    render: Render,
    *,
    instruction: str,
    list_labels: bool,
    descriptions: bool,
    max_message_tokens: int,
    prefix_block: int | None,
    redaction: str | None = None,
) -> tuple[PromptSpec, Mapping[str, Code]]:
    """Return the prompt and each label's code.

    The system text is the instruction and, with ``list_labels``, one line per label: its code,
    its name and, with ``descriptions``, its description. With ``prefix_block`` the system text is
    padded so that the prefix fills whole blocks of so many tokens: an engine's prefix cache
    holds whole blocks only. ``redaction`` names the rules that redact personal data in a message.
    Raises BadInput, or ContractError from the choice of codes.
    """
    _, suffix = _split(render, instruction)
    codes = choose_codes(taxonomy.names, suffix, encoders.control)
    lines = [instruction]
    if list_labels:
        for label in taxonomy.labels:
            line = f"{codes[label.name].text} {label.name}"
            lines.append(f"{line}: {label.description}" if descriptions else line)
    system = "\n".join(lines)
    if prefix_block:
        system = _fill_block(system, render, encoders, prefix_block)
    prefix, suffix = _split(render, system)
    spec = PromptSpec(
        prefix=prefix,
        suffix=suffix,
        marker=MARKER,
        prefix_ids=tuple(encoders.control(prefix)),
        suffix_ids=tuple(encoders.control(suffix)),
        marker_ids=tuple(encoders.plain(MARKER)),
        max_message_tokens=max_message_tokens,
        normalization=NORMALIZATION,
        redaction=redaction,
    )
    return spec, codes


def _split(render: Render, system: str) -> tuple[str, str]:
    """Render around a placeholder and cut it out. Bases without a system role get the system
    text at the top of the user's turn."""
    chats = (
        [{"role": "system", "content": system}, {"role": "user", "content": PLACEHOLDER}],
        [{"role": "user", "content": f"{system}\n\n{PLACEHOLDER}"}],
    )
    for chat in chats:
        try:
            text = render(chat)
        except ValueError:  # the template refused the role; the next chat avoids it
            continue
        if text.count(PLACEHOLDER) == 1 and text.count(system) == 1:
            prefix, suffix = text.split(PLACEHOLDER)
            return prefix, suffix
    raise BadInput("the base's chat template does not keep the instruction and the message whole")


def _fill_block(system: str, render: Render, encoders: Encoders, block: int) -> str:
    """Append a line of dots until the prefix's length in tokens is a multiple of ``block``."""
    for dots in range(_FILLER_TRIES):
        for gap in _GAPS:
            padded = f"{system}{gap}{(_FILLER * dots).strip()}" if dots else system
            if len(encoders.control(_split(render, padded)[0])) % block == 0:
                return padded
    raise BadInput(f"prefix_block={block}: no padding fits this tokenizer; set prefix_block=0")
