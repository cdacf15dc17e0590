"""The inputs of a training that are known before the model is loaded: dataset, prompt, rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from trainer.check.duplicates import number_clusters, number_groups
from trainer.dataset.extra_files import read_groups
from trainer.dataset.folder import TRAIN, Dataset, Example, open_dataset
from trainer.dataset.people import has_teacher
from trainer.dataset.split import first_of_each
from trainer.errors import BadInput, ProofFailed
from trainer.model.base_card import find_prefix
from trainer.model.bases import AUTO
from trainer.model.lora_model import label_token_ids
from trainer.model.prompt import (
    BaseTokenizer,
    Row,
    load_renderer,
    load_tokenizer,
    make_encoder_prompt,
    make_prompt,
    make_rows,
    message_of,
    verify_answers,
)
from trainer.model.scoring import Class, find_classes
from trainer.statistics.metrics import Groups, as_groups
from trainer.statistics.thresholds import FEWEST_VALIDATION
from trainer.steering.sentences import make_copies
from trainer.training.console import choose_rows, draw_row
from trainer.training.recipe import Recipe
from worker.contract import BaseModel, Code, PromptSpec
from worker.contract.digest import sha256_json

# A resumed training may change these. The number of threads in use is compared separately.
_NO_EFFECT_ON_WEIGHTS = {
    "checkpoint_every_s",
    "memory_check",
    "serve_in_4bit",
    "threads",
    "tracking",
    "tracking_project",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """A training's inputs, read and checked; the hold-out is not among them.

    ``codes`` are a language model's answers by label, ``classes`` the outputs of a head; the other
    one is empty. ``copies`` has, for each epoch, the rows of messages with an instruction in them.
    ``folds`` is None, or the fold of each row, (rows,): then ``validation`` has the rows of all
    examples, and ``dataset`` the same for both.
    """

    dataset: Dataset
    tokenizer: BaseTokenizer
    spec: PromptSpec
    train: tuple[Row, ...]
    copies: tuple[tuple[Row, ...], ...]
    validation: tuple[Row, ...]
    codes: Mapping[str, Code] = field(default_factory=dict)
    classes: tuple[Class, ...] = ()
    folds: NDArray[np.int64] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the taxonomy's order."""
        return self.dataset.taxonomy.names

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the model's outputs: its head's classes, or the labels."""
        return tuple(each.name for each in self.classes) or self.labels

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The codes' token ids, in the taxonomy's order."""
        return label_token_ids(self.codes, self.labels)

    @property
    def truth(self) -> NDArray[np.int64]:
        """The right labels' indexes, (validation rows,)."""
        indexes = [self.labels.index(row.label) for row in self.validation]
        return np.array(indexes, dtype=np.int64)

    @property
    def validation_groups(self) -> Groups | None:
        """The group of each validation row, (rows,); None if all rows are independent."""
        return as_groups(number_groups(self.dataset, self.dataset.validation))

    @property
    def sublabels(self) -> tuple[str, ...]:
        """The finer labels of the training rows, sorted."""
        return tuple(sorted({row.sublabel for row in self.train if row.sublabel is not None}))

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row that is learned or validated, copies included."""
        return (*self.train, *chain.from_iterable(self.copies), *self.validation)

    def epoch(self, number: int) -> tuple[Row, ...]:
        """Return the rows that an epoch learns, the first being 1."""
        return *self.train, *self.copies[number - 1]

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all rows."""
        return max(len(row.prompt) for row in self.rows)

    @property
    def mean_prompt(self) -> float:
        """Mean tokens of a training prompt."""
        return round(sum(len(row.prompt) for row in self.train) / len(self.train), 1)

    @property
    def tags(self) -> dict[str, str]:
        """The dataset's tags for a tracker."""
        return {"dataset": self.dataset.name, "dataset_digest": self.dataset.digest}

    def to_record(self) -> dict[str, Any]:
        """Return the manifest's record of the dataset: digests, sizes, counts per label and per
        source of labels, and how names were redacted, which serving does not do.

        The counts are of the whole dataset, even if ``per_label`` limits the training.
        """
        names = self.dataset.record.get("names_redaction")
        sources = self.dataset.record.get("label_sources")
        return {
            "name": self.dataset.name,
            "digest": self.dataset.digest,
            "taxonomy_sha256": self.dataset.taxonomy.digest,
            **{
                name.removesuffix(".jsonl"): {
                    "examples": facts["examples"],
                    "per_label": facts["per_label"],
                    "sha256": facts["sha256"],
                }
                for name, facts in self.dataset.record["files"].items()
                # An import reads no training messages: whether its model learned them is unknown.
                if self.train or name != f"{TRAIN}.jsonl"
            },
            **({"names_redaction": names} if names else {}),
            **({"label_sources": sources} if sources else {}),
        }


def open_for_training(recipe: Recipe) -> Dataset:
    """Open a recipe's dataset. Raises BadInput if a label has no example in training or
    validation; the random sample that people decided may lack a rare one."""
    dataset = open_dataset(recipe.dataset)
    for part in ("train",) if dataset.record.get("people") else ("train", "validation"):
        empty = [name for name, count in _counts(dataset, part).items() if not count]
        if empty:
            raise BadInput(
                f"{recipe.dataset}: no {part} example of {', '.join(empty)}: prepare the dataset "
                "with more of them, or remove the label from the taxonomy"
            )
    return dataset


def read_code_inputs(recipe: Recipe) -> Inputs:
    """Read dataset and tokenizer, and build every row. Raises BadInput, ContractError."""
    dataset = open_for_training(recipe)
    tokenizer = load_tokenizer(recipe.base)
    renderer = load_renderer(recipe.base)
    spec, codes = make_prompt(
        dataset.taxonomy,
        tokenizer.encoders,
        renderer,
        instruction=recipe.instruction,
        list_labels=recipe.list_labels,
        descriptions=recipe.descriptions,
        max_message_tokens=recipe.max_message_tokens,
        prefix_block=recipe.prefix_block,
        redaction=dataset.redaction,
    )
    spec = replace(spec, prompt_date=renderer.printed_date)
    examples = take_per_label(dataset.train, recipe.per_label, recipe.seed)
    make = partial(make_rows, spec=spec, encode_plain=tokenizer.encoders.plain, codes=codes)
    copies = _make_copies(examples, dataset, recipe, make)
    train, validation = make(examples), make(dataset.validation)
    return Inputs(dataset, tokenizer, spec, train, copies, validation, codes=codes)


def verify_rows(inputs: Inputs, console: Console) -> None:
    """Check that every row learns only its label's code, and show a few rows. Their messages are
    shown on a terminal only, because other output may be kept as a log. Raises ProofFailed."""
    rows = inputs.rows
    decode = inputs.tokenizer.decode
    verify_answers(rows, inputs.spec, inputs.codes, decode)
    for row in choose_rows(inputs.train, 3):
        drawn = draw_row(row, inputs.spec, decode, texts=console.is_terminal)
        console.print(drawn, "", sep="\n", soft_wrap=True)
    console.print(
        f"{len(rows)} rows learn exactly their label's code, shown between ⟦ and ⟧ above: "
        f"{_count_rows(inputs)}",
        soft_wrap=True,
    )


def read_head_inputs(recipe: Recipe) -> Inputs:
    """Read dataset and tokenizer, and build every row. The head has a class for each finer label
    if those are learnt, else for each label. Raises BadInput."""
    dataset = open_for_training(recipe)
    tokenizer = load_tokenizer(recipe.base)
    spec = make_encoder_prompt(
        recipe.base,
        tokenizer.encoders,
        max_message_tokens=recipe.max_message_tokens,
        redaction=dataset.redaction,
        message_prefix=find_prefix(recipe.base)
        if recipe.message_prefix == AUTO
        else recipe.message_prefix,
    )
    examples = take_per_label(dataset.train, recipe.per_label, recipe.seed)
    folds = None
    if learns_by_folds(recipe, dataset):
        examples = (*examples, *dataset.validation)
        dataset = replace(dataset, train=examples, validation=examples)
        folds = _assign_folds(dataset, examples, recipe.seed)
    make = partial(make_rows, spec=spec, encode_plain=tokenizer.encoders.plain)
    copies = _make_copies(examples, dataset, recipe, make)
    train, validation = make(examples), make(dataset.validation)
    classes = find_classes(examples, dataset.taxonomy.names, finer=recipe.sublabel_weight != 0)
    return Inputs(dataset, tokenizer, spec, train, copies, validation, classes=classes, folds=folds)


FOLDS = 10
"""A model of a fold learns nine tenths of the rows, so it is nearly the model that is served. Five
folds send more to review."""


def learns_by_folds(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether the model learns all rows that are not held out, and calibration and thresholds come
    from predictions of models that did not learn the row (cross-fitting).

    Only a kind that trains again in seconds does. A split by time does not: its validation is later
    than what is learnt, as in service, which folds would hide. Nor does a dataset with a teacher's
    labels: folds would count agreement with it as precision.
    """
    return (
        recipe.kind == "embedding-linear"
        and len(dataset.validation) < FEWEST_VALIDATION
        and not has_teacher(dataset.record, TRAIN)
        and (dataset.record.get("split") or {}).get("by") != "time"
    )


def _assign_folds(dataset: Dataset, examples: Sequence[Example], seed: int) -> NDArray[np.int64]:
    from trainer.check.suspects import assign_folds

    labels = [dataset.taxonomy.names.index(example.label) for example in examples]
    clusters = number_clusters(examples, read_groups(dataset))
    return assign_folds(np.array(labels, dtype=np.int64), clusters, seed, FOLDS)


def verify_head_rows(inputs: Inputs, console: Console) -> None:
    """Check that every row is a message between the special tokens and has no control token, and
    print the row counts. Raises ProofFailed."""
    spec, control = inputs.spec, inputs.tokenizer.encoders.control_ids
    for number, row in enumerate(inputs.rows):
        message = message_of(row.prompt, spec)
        if message is None:
            raise ProofFailed(f"row {number} ({row.label}) is not built from the prompt's parts")
        if not message or control.intersection(message):
            raise ProofFailed(f"row {number} ({row.label}) has control tokens, or no message")
    finer = len(inputs.classes) - len(inputs.labels)
    of_which = f", from {len(inputs.classes)} finer ones" if finer else ""
    console.print(
        f"{_count_rows(inputs)}; {len(inputs.labels)} labels{of_which}",
        soft_wrap=True,
    )


def _count_rows(inputs: Inputs) -> str:
    copies, rows = len(inputs.copies[0]), len(inputs.train)
    again = f", {copies:,} of them also with a sentence that names a label" if copies else ""
    if inputs.folds is None:
        return f"{rows:,} rows for training{again}, {len(inputs.validation):,} for validation"
    return (
        f"{rows:,} rows, all of them learnt{again}; thresholds come from predictions of "
        f"{len(np.unique(inputs.folds))} models that did not learn the row"
    )


def _make_copies(
    examples: Sequence[Example],
    dataset: Dataset,
    recipe: Recipe,
    make: Callable[[Sequence[Example]], tuple[Row, ...]],
) -> tuple[tuple[Row, ...], ...]:
    """Return for each epoch the rows of copies of some examples, in which a sentence names a
    label. Other ones each time: a model could learn a few by heart."""
    made = []
    for epoch in range(1 if recipe.kind == "embedding-linear" else recipe.epochs):
        copies = make_copies(
            examples,
            dataset.taxonomy,
            share=recipe.steering_augmentation,
            seed=f"{recipe.seed}:{epoch}",
        )
        rows = make(tuple(copies.values()))
        made.append(
            tuple(
                replace(row, place=place, is_copy=True)
                for place, row in zip(copies, rows, strict=True)
            )
        )
    return tuple(made)


def take_per_label(examples: Sequence[Example], per_label: int, seed: int) -> tuple[Example, ...]:
    """Return at most ``per_label`` examples of each label (0: all), in their order. A smaller
    number takes a subset of a larger one, so the points of a learning curve are nested."""
    if not per_label:
        return tuple(examples)
    # Ranked by a hash of the id, so an example's rank does not depend on how many are taken.
    places = [sha256_json([seed, example.id]) for example in examples]
    chosen = first_of_each([example.label for example in examples], places, per_label)
    return tuple(examples[at] for at in chosen)


def weights_identity(recipe: Recipe, dataset: Dataset, base: BaseModel) -> dict[str, Any]:
    """Return everything that determines a training's weights, as plain JSON: the recipe's settings,
    the dataset and the base."""
    settings = {
        key: value for key, value in recipe.to_record().items() if key not in _NO_EFFECT_ON_WEIGHTS
    }
    return settings | {"dataset": dataset.digest, "base": sha256_json(asdict(base))}


def _counts(dataset: Dataset, part: str) -> Mapping[str, int]:
    counts: Mapping[str, int] = dataset.record["files"][f"{part}.jsonl"]["per_label"]
    return counts
