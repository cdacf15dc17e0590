"""The folder of ``start``: its files, its recipe, and the commands that fill it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainer.artifacts.duel import DUEL, DUEL_FOLDER
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.check.findings import CHECK
from trainer.dataset.folder import MANIFEST
from trainer.dataset.settings import declared_options
from trainer.errors import BadInput
from trainer.model_card import CARD
from trainer.start.chain import STATE, Step
from trainer.statistics.thresholds import FEWEST_VALIDATION
from trainer.store.publish import EARLIER
from trainer.store.record import find_anchor, find_dataset_of
from trainer.training.recipe import read_recipe
from worker.contract import MANIFEST_NAME, read_manifest
from worker.contract.digest import sha256_file
from worker.contract.store import CURRENT_NAME, read_pointer


class Places:
    """The paths in the folder of ``start``. Only ``taxonomy``, ``recipe`` and ``queue`` are edited
    by people."""

    def __init__(self, out: Path, after: Path | None = None) -> None:
        self.out, self.after = out, after
        self.taxonomy = out / "taxonomy.toml"
        self.recipe = out / "recipe.toml"
        self.data = out / "data"
        self.queue = out / "data-review.csv"  # the labels to decide on, which ``check`` writes
        self.run = out / "run"  # the training, its evaluation and its duel
        self.page = self.run / "report.html"
        self.store = out / "store"  # the adapter store that the next commands name
        if after is not None and (earlier := STATE.read_if_present(after)) is not None:
            self.store = Path(earlier.store or after / "store")  # that of the first month
        self.log = out / "start.log"  # what the commands printed


_ENOUGH_TO_TUNE = 2000
"""Messages from which an encoder is fine-tuned. Its thresholds need FEWEST_VALIDATION validation
messages, and of fewer messages too many would be validation; with frozen embeddings all messages
that are not held out set the thresholds, and are learned too."""

_USUAL_VALIDATION = next(
    each.default for each in declared_options() if each.name == "validation_share"
)


def validation_share(messages: int, given: float) -> float:
    """Return the share of validation messages: enough of them for an encoder's thresholds, if there
    are enough messages to fine-tune one; ``given`` if that is not the default."""
    if given != _USUAL_VALIDATION or messages < _ENOUGH_TO_TUNE:
        return given
    return max(given, math.ceil(105 * FEWEST_VALIDATION / messages) / 100)  # and 5 % more


def recipe_text(messages: int, *, sublabels: bool) -> str:
    """Return the recipe (TOML) for so many messages, with or without finer labels: an encoder that
    is fine-tuned, or one that stays as it is, below logistic regression."""
    # No number of messages: a few more would change the file, and with it the training.
    few = "fewer" if messages < _ENOUGH_TO_TUNE else "more"
    header = f"""\
# How the model of this folder is trained, with {few} than {_ENOUGH_TO_TUNE:,} messages.
# clerk-trainer start wrote this file. Edit it and run the same command again: your version is kept.
# config/trainer-encoder.toml of the source tree explains every setting.

"""
    common = f"""\
max_message_tokens = 192
sublabel_weight = {0.5 if sublabels else 0}       # of finer labels in what is learned
review_precision = 0.95   # of the labels that are not sent to review
"""
    if messages < _ENOUGH_TO_TUNE:
        return f"""\
{header}# "encoder" fine-tunes the base, from about {_ENOUGH_TO_TUNE:,} messages on
kind = "embedding-linear"
{common}"""
    return f"""\
{header}# "embedding-linear" leaves the base as it is: seconds instead of minutes
kind = "encoder"
{common}
epochs = 6
early_stopping_patience = 2
batch_size = 32
learning_rate = 2e-4
head_learning_rate = 2e-3
weight_decay = 0.01
warmup_ratio = 0.1
label_smoothing = 0.05
adapter_dtype = "float32"
checkpoint_every_s = 60
"""


def make_steps(
    places: Places,
    prepare: Sequence[str],
    files: Sequence[Path],
    *,
    recipe: Path,
    base: Path | None,
    sets: Sequence[str],
) -> list[Step]:
    """Return the steps in order. ``prepare`` are the options of that command, without ``--out``,
    ``files`` those that they name; ``sets`` are settings over the recipe's. Raises BadInput if a
    file cannot be read."""
    run = places.run
    on_base: tuple[str | Path, ...] = ("--base", base) if base else ()
    on_data = ("--dataset", places.data)
    evaluation, duel = run / EVALUATION_FOLDER, run / DUEL_FOLDER
    known = {str(path): path for path in files}
    options = [word for given in sets for word in ("--set", given)]
    # An encoder has no prompt and no codes to check.
    is_encoder = recipe_setting(recipe, sets, "kind") not in {None, "lora-code"}
    for_prompt = () if is_encoder else on_base
    return [
        Step(
            ("prepare", *(known.get(word, word) for word in prepare), "--out", places.data),
            result=places.data / MANIFEST,
            made=(places.data,),
            inputs=_digests(files),
        ),
        Step(
            ("check", places.data, *for_prompt, "--queue", places.queue, "--update"),
            result=places.data / CHECK.name,
            made=(places.data / CHECK.name,),
            may_fail=True,
        ),
        Step(
            ("train", "--recipe", recipe, *on_data, *on_base, "--out", run, "--resume", *options),
            result=run / CARD,
            made=(run,),
            inputs=_digests([recipe]),
        ),
        Step(
            ("evaluate", run / "adapter", *on_data, *on_base),
            result=evaluation / EVALUATION.name,
            made=(evaluation,),
        ),
        Step(
            ("duel", run / "adapter", *on_data, *on_base, "--evaluation", evaluation),
            result=duel / DUEL.name,
            made=(duel,),
        ),
        *_measure_earlier(places),
        Step(
            ("report", run, "--store", places.store),
            result=places.page,
            made=(places.page,),
        ),
        *_publish(places),
    ]


def _measure_earlier(places: Places) -> Iterator[Step]:
    """Yield the evaluations of the earlier month's adapters on this month's hold-out: the current
    one, and the first of its series."""
    pointer = read_pointer(places.store) if places.after else None
    current = pointer.digest if pointer else None
    own = places.run / "adapter"
    if pointer and (own / MANIFEST_NAME).is_file() and read_manifest(own).digest == current:
        current = pointer.previous  # this month's is published already
    if current is None:
        return
    for digest in dict.fromkeys((current, find_anchor(places.store, current))):
        learned = find_dataset_of(places.store, digest) or places.after
        out = places.run / EARLIER / digest[:12]
        yield Step(
            ("evaluate", places.store / digest, "--dataset", places.data, "--trained-on",
             str(learned), "--no-steering", "--out", out),
            of=digest[:12],
            result=out / EVALUATION.name,
            made=(out,),
        )  # fmt: skip


def _publish(places: Places) -> Iterator[Step]:
    if places.after and read_pointer(places.store):
        yield Step(
            ("publish", places.run, "--store", places.store),
            result=places.store / CURRENT_NAME,
            may_fail=True,
        )


def recipe_setting(recipe: Path, sets: Sequence[str], key: str) -> str | None:
    """Return a setting of a recipe, over which ``sets`` (KEY=VALUE) win; None if it is not there.
    Raises BadInput if the recipe cannot be read."""
    given = [each.partition("=")[2] for each in sets if each.startswith(f"{key}=")]
    found = given[-1] if given else read_recipe(recipe).get(key)
    return None if found is None else str(found)


def _digests(files: Sequence[Path]) -> Mapping[str, str]:
    found = {}
    for path in files:
        try:
            found[path.name] = sha256_file(path)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from error
    return found
