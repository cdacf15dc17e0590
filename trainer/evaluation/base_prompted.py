"""The base without an adapter, told the taxonomy in its prompt: what training has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from trainer.evaluation.adapter import code_ids, prompts_of
from trainer.evaluation.progress import make_bar
from trainer.evaluation.scoring import RawScores, make_scorer
from trainer.model.prompt import make_prompt
from trainer.model.student import LoraModel, load_renderer
from trainer.model.tokens import BaseTokenizer
from worker.contract import Manifest

INSTRUCTION = (
    "You file customers' messages. Answer with the letter of the one category that the message "
    "belongs to, and with nothing else. The categories are:"
)

_BATCH_SIZE = 16


def score_base(
    messages: Mapping[str, str],
    *,
    base: Path,
    student: LoraModel,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    console: Console,
) -> RawScores:
    """Score messages with the adapter switched off, by the base's own chat template, every label
    listed with its code and its description. Columns are in the taxonomy's order."""
    taxonomy = manifest.taxonomy
    spec, codes = make_prompt(
        taxonomy,
        tokenizer.encoders,
        load_renderer(base),
        instruction=INSTRUCTION,
        list_labels=True,
        descriptions=any(one.description for one in taxonomy.labels),
        max_message_tokens=manifest.prompt.max_message_tokens,
        prefix_block=None,
    )
    prompts = list(prompts_of(messages, spec, tokenizer).values())
    with student.peft.disable_adapter(), make_bar(console, "the base", len(prompts)) as advance:
        scorer = make_scorer(student, spec.prefix_ids, code_ids(codes, taxonomy.names), prompts)
        return scorer.score(prompts, batch_size=_BATCH_SIZE, done=advance)
