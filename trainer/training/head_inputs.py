"""Everything that is known of a training with a head before the model is loaded."""

from __future__ import annotations

from rich.console import Console

from trainer.errors import ProofFailed
from trainer.model.encoder_prompt import make_encoder_prompt
from trainer.model.head_rows import HeadRow, make_head_rows
from trainer.model.head_scoring import find_classes
from trainer.model.prompt import load_tokenizer
from trainer.training.inputs import Inputs, open_for_training, take_per_label
from trainer.training.recipe import Recipe


def read_head_inputs(recipe: Recipe) -> Inputs[HeadRow]:
    """Read dataset and tokenizer, and build every row. The head has a class for each finer label
    that is learnt, else one for each label. Raises BadInput."""
    dataset = open_for_training(recipe)
    tokenizer = load_tokenizer(recipe.base)
    spec = make_encoder_prompt(
        recipe.base,
        tokenizer.encoders,
        max_message_tokens=recipe.max_message_tokens,
        redaction=dataset.redaction,
    )
    examples = take_per_label(dataset.train, recipe.per_label, recipe.seed)
    train, validation = (
        make_head_rows(part, spec, tokenizer) for part in (examples, dataset.validation)
    )
    classes = find_classes(examples, dataset.taxonomy.names, finer=recipe.sublabel_weight != 0)
    return Inputs(dataset, tokenizer, spec, train, validation, classes=classes)


def verify_head_rows(inputs: Inputs[HeadRow], console: Console) -> None:
    """Check that every row is the message between the special tokens, with no control token in
    it, and say what is learnt. Raises ProofFailed."""
    spec, control = inputs.spec, inputs.tokenizer.encoders.control_ids
    for number, row in enumerate((*inputs.train, *inputs.validation)):
        end = len(row.ids) - len(spec.suffix_ids)
        message = row.ids[len(spec.prefix_ids) : end]
        if row.ids[: len(spec.prefix_ids)] != spec.prefix_ids or row.ids[end:] != spec.suffix_ids:
            raise ProofFailed(f"row {number} ({row.label}) is not built from the prompt's parts")
        if not message or control.intersection(message):
            raise ProofFailed(f"row {number} ({row.label}) holds control tokens, or no message")
    finer = len(inputs.classes) - len(inputs.labels)
    of_which = f", from {len(inputs.classes)} finer ones" if finer else ""
    console.print(
        f"{len(inputs.train)} rows to train on, {len(inputs.validation)} for validation; "
        f"{len(inputs.labels)} labels{of_which}",
        soft_wrap=True,
    )
