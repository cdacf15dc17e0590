"""Import a LoRA adapter that was trained elsewhere: it answers with the words of labels, and each
word's tokens are its code.

The prompt is what the training file shows, and the worker's own way to build it is compared with
that, token by token. Transformers' own generation is asked too, by the prompts of the training.
Everything else is as for a classifier that was imported (``trainer.training.imported``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.artifacts.training import (
    BaseName,
    Difference,
    Imported,
    LearntPrompts,
    ParameterCounts,
    TrainingRecord,
)
from trainer.dataset.folder import Dataset, open_dataset
from trainer.errors import BadInput
from trainer.model.base_card import find_languages, find_license
from trainer.model.bases import describe_source
from trainer.model.foreign_lora import (
    ForeignLora,
    Learnt,
    LearntPrompt,
    read_learnt,
    read_lora,
)
from trainer.model.lora_model import LoraModel, write_weights
from trainer.model.prompt import BaseTokenizer, load_tokenizer, make_rows, make_spec
from trainer.model.scoring import make_verified_scorer
from trainer.model_card import write_run_card
from trainer.progress import track
from trainer.training import imported
from trainer.training.adapter import Parts, write_record, write_rest
from trainer.training.imported import (
    KEPT,
    UNTRAINED,
    ImportRequest,
    check_settings,
    choose_compared,
    map_outputs,
    record_settings,
    require_validation,
)
from trainer.training.inputs import Inputs
from trainer.training.parts import Result, judge
from trainer.training.recipe import Recipe, make_recipe
from trainer.training.run_folder import DRAFT, open_run
from worker.contract import (
    Code,
    ContractError,
    build_prompt,
    describe_base,
    make_golden,
    word_codes,
)
from worker.contract.text import message_sha256

SETTINGS = tuple(name for name in imported.SETTINGS if name != "onnx")
"""The settings of a recipe that an import of a LoRA adapter uses."""

_GENERATED = 300


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is imported, checked, with the validation messages alone."""

    request: ImportRequest
    recipe: Recipe
    adapter: ForeignLora
    learnt: LearntPrompt
    inputs: Inputs


def import_lora(request: ImportRequest) -> TrainingRecord:
    """Import a LoRA adapter into the run folder and return the record. Raises BadInput for an
    adapter, prompts or messages that cannot be used."""
    started = time.monotonic()
    opened = _open(request)
    model = opened.adapter.load(opened.recipe.base)
    # Nothing is written, or replaced, for weights that do not fit the base.
    open_run(opened.recipe.run, resume=False, replace=request.replace)
    spec, codes = opened.inputs.spec, opened.inputs.codes
    prompts = [row.prompt for row in opened.inputs.validation]
    scorer = make_verified_scorer(model, spec.prefix_ids, codes, prompts)
    scores = scorer.score(prompts).logprobs
    outputs, truth = opened.inputs.outputs, opened.inputs.truth
    figures, calibrated = judge(opened.recipe, opened.inputs, scores, truth, None)
    result = Result({}, scores, outputs, truth, None, figures, calibrated)
    compared = _compare(opened, model, result)
    try:
        record = _write(opened, model, result, compared, started)
    finally:
        if (draft := opened.recipe.run / DRAFT).exists():
            shutil.rmtree(draft)
    write_run_card(opened.recipe.run)
    return record


def _open(request: ImportRequest) -> _Opened:
    if request.base is None or request.prompts is None:
        raise BadInput(
            f"{request.source}: is a LoRA adapter: give --base, the model that it was trained on, "
            "and --prompts, its training file or some of its lines"
        )
    if request.labels is not None or request.messages:
        raise BadInput("--labels and --messages are for classifiers, not for a LoRA adapter")
    check_settings(request, SETTINGS)
    name, revision = describe_source(request.base)
    where = {"base": request.base, "dataset": request.dataset, "run": request.run}
    # A recipe's instruction makes the prompt; here the training file does.
    named = {"base_name": name, "base_revision": revision, "instruction": request.prompts.name}
    recipe = make_recipe({"kind": "lora-code", **where, **named, **(request.settings or {})})
    adapter = read_lora(request.source)
    dataset = open_dataset(request.dataset)
    require_validation(dataset)
    learnt = read_learnt(request.prompts, request.source, request.base)
    _refuse_learnt(request, dataset, learnt)
    tokenizer = load_tokenizer(request.base)
    spec = make_spec(
        learnt.prefix,
        learnt.suffix,
        tokenizer.encoders,
        max_message_tokens=recipe.max_message_tokens,
        redaction=dataset.redaction,
    )
    codes = _make_codes(request, learnt, dataset.taxonomy.names, tokenizer)
    validation = make_rows(dataset.validation, spec, tokenizer.encoders.plain, codes)
    inputs = Inputs(dataset, tokenizer, spec, (), (), validation, codes=codes)
    return _Opened(request, recipe, adapter, learnt, inputs)


def _refuse_learnt(request: ImportRequest, dataset: Dataset, learnt: LearntPrompt) -> None:
    """Raise BadInput if validation messages are in the training file though --unseen says that
    none can have been learnt. The hold-out stays sealed."""
    known = {message_sha256(each.message) for each in learnt.examples}
    asked = dataset.validation
    seen = [each.id for each in asked if message_sha256(each.message) in known]
    if seen and request.unseen is not None:
        raise BadInput(
            f"--unseen: {len(seen)} of {len(asked)} validation messages are in {request.prompts}, "
            f"so the adapter learnt them (id {seen[0]}): prepare the dataset without them"
        )


def _make_codes(
    request: ImportRequest,
    learnt: LearntPrompt,
    labels: Sequence[str],
    tokenizer: BaseTokenizer,
) -> dict[str, Code]:
    """Return the code of each label, in the taxonomy's order. Raises BadInput for answers that are
    no label, or of which several are one."""
    classes = map_outputs(tuple(learnt.answers), labels, request.label_map)
    answers: dict[str, list[str]] = {label: [] for label in labels}
    for each in classes:
        answers[each.label].append(each.name)
    several = [f"{label!r} ({', '.join(names)})" for label, names in answers.items() if names[1:]]
    if several:
        raise BadInput(
            f"several answers stand for {'; '.join(several)}: a worker knows one for each label: "
            "give each its own label, or train with one answer for them"
        )
    words = {label: learnt.answers[name] for label, (name,) in answers.items()}
    try:
        return word_codes(words, learnt.suffix, tokenizer.encoders.control)
    except ContractError as error:
        raise BadInput(f"{request.prompts}: {error}") from error


def _compare(opened: _Opened, model: LoraModel, result: Result) -> Imported:
    """Ask the adapter as its training did, and compare with what is served."""
    inputs = opened.inputs
    truth = inputs.truth
    places = choose_compared(len(inputs.validation), _GENERATED)
    served = result.chosen[places]
    words = {label: code.text for label, code in inputs.codes.items()}
    prompts = [
        opened.learnt.prefix + inputs.dataset.validation[at].message + opened.learnt.suffix
        for at in places
    ]
    said = generate(model, inputs.tokenizer, prompts, words)
    own = np.array([inputs.labels.index(each) if each else -1 for each in said], dtype=np.int64)
    return Imported(
        form="lora",
        source=str(opened.request.source),
        options=opened.request.options,
        unseen=opened.request.unseen,
        original_accuracy=float((own == truth[places]).mean()),
        served_accuracy=float((served == truth[places]).mean()),
        served=Difference(messages=len(places), labels_differ=int((own != served).sum())),
        prompts=_compare_prompts(inputs, opened.learnt.examples),
    )


def _compare_prompts(inputs: Inputs, examples: Sequence[Learnt]) -> LearntPrompts:
    """Compare the tokens of prompts as they were learnt with those that a worker sends."""
    encoders = inputs.tokenizer.encoders
    chosen = [examples[at] for at in choose_compared(len(examples))]
    same, first = 0, None
    for each in chosen:
        wanted = tuple(encoders.control(each.prompt))
        prompt = build_prompt(inputs.spec, each.message, encoders.plain)
        ids = prompt.ids if prompt is not None else ()
        if ids == wanted:
            same += 1
        elif first is None:
            both = enumerate(zip(ids, wanted, strict=False))
            shorter = min(len(ids), len(wanted))
            first = next((at for at, (one, other) in both if one != other), shorter)
    return LearntPrompts(compared=len(chosen), same_tokens=same, first_difference=first)


def generate(
    model: LoraModel, tokenizer: BaseTokenizer, prompts: Sequence[str], words: dict[str, str]
) -> list[str | None]:
    """Return the label that transformers' own greedy generation gives to each prompt; None for an
    answer that is not a label's."""
    longest = max(len(tokenizer.encoders.control(text)) for text in words.values())
    found: list[str | None] = []
    with model.without_dropout(), torch.inference_mode():
        for prompt in track("generating", prompts):
            ids = torch.tensor([tokenizer.encoders.control(prompt)], device=model.device)
            made = model.causal_lm.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=longest,
                pad_token_id=0,
            )
            text = tokenizer.decode(made[0, ids.shape[1] :].tolist())
            said = (label for label, answer in words.items() if text.startswith(answer))
            found.append(next(said, None))
    return found


def _write(
    opened: _Opened, model: LoraModel, result: Result, compared: Imported, started: float
) -> TrainingRecord:
    """Write the adapter, the validation scores, and last the record; return the record."""
    recipe, inputs, adapter = opened.recipe, opened.inputs, opened.adapter
    settings = record_settings(recipe, SETTINGS)
    config = model.adapter_config(recipe.base_name)
    parts = Parts(
        files=write_weights(recipe.run / DRAFT, model.state_dict(), config, adapter.dtype),
        golden=make_golden(inputs.spec, inputs.tokenizer.encoders),
        lora=model.lora,
        codes=inputs.codes,
        data={"recipe": settings, "imported": compared.to_manifest()},
    )
    manifest = write_rest(
        recipe,
        inputs,
        result,
        parts,
        name=f"{inputs.dataset.taxonomy.name}-imported",
        base=describe_base(recipe.base, recipe.base_name, recipe.base_revision),
        outcome={"steps": 0, "kept": KEPT},
    )
    weights = sum(each.numel() for each in adapter.state.values())
    return write_record(
        recipe.run,
        inputs,
        result,
        manifest,
        device=model.device,
        started=started,
        base=BaseName(
            name=recipe.base_name,
            revision=recipe.base_revision,
            license=find_license(recipe.base),
            directory=str(recipe.base),
            languages=find_languages(recipe.base),
        ),
        recipe=settings,
        seeds={"python": recipe.seed},
        compute_dtype="float32" if model.device.type == "cpu" else "bfloat16",
        tokens_per_message=round(float(np.mean([len(r.prompt) for r in inputs.validation])), 1),
        parameters=ParameterCounts(
            trainable=weights, total=sum(each.numel() for each in model.causal_lm.parameters())
        ),
        onnx=(),
        imported=compared,
        **UNTRAINED,
    )
