"""A LoRA adapter that was trained elsewhere: its weights, and the prompts and answers it learnt.

Axolotl, LLaMA-Factory, Unsloth, TRL and others all write PEFT's two files, and none of them writes
the prompt. That comes from the training file, or from some of its lines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.lora_model import CONFIG, WEIGHTS, LoraModel, load_as_served, read_weights
from trainer.model.prompt import Renderer, load_renderer, special_tokens
from worker.common.tables import TableError, read_table
from worker.common.tables.chat import LABEL, MESSAGE, form_of, turns_of
from worker.contract import Lora

FEWEST_EXAMPLES = 10
"""Fewer prompts may have words of their messages in common by chance."""

_SAME_PROMPT = 0.9
"""The least share of lines whose prompt differs in the message alone."""

_TENSOR_PARTS = {"lora_A", "lora_B"}

# What vLLM 0.32 refuses (vllm/lora/peft_helper.py), and what our own layers do not compute, unless
# its value is empty or false.
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "lora_bias": "a bias in LoRA",
    "modules_to_save": "whole layers that were trained (modules_to_save)",
    "trainable_token_indices": "trained embeddings (trainable_token_indices)",
    "target_parameters": "LoRA on parameters (target_parameters)",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "activated LoRA",
    "rank_pattern": "layers of several ranks (rank_pattern)",
    "alpha_pattern": "layers of several alphas (alpha_pattern)",
    "megatron_config": "Megatron's layers",
}
_PLAIN_INITS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
"""Beginnings of the weights that leave the base as it is (the same file of vLLM)."""


@dataclass(frozen=True, slots=True)
class ForeignLora:
    """An adapter's weights by PEFT's names, its shape, and the type in which they are stored."""

    lora: Lora
    state: Mapping[str, Tensor]
    dtype: str

    def load(self, base: Path) -> LoraModel:
        """Return the base with the adapter, in the precision in which workers serve it. Layers that
        the adapter leaves as they are get weights of zero. Raises BadInput."""
        model = load_as_served(base, self.lora, device="auto", in_4bit=False)
        empty = {name: weights.zero_() for name, weights in model.state_dict().items()}
        model.load_state_dict(empty | {name: one.float() for name, one in self.state.items()})
        return model


def read_lora(folder: Path) -> ForeignLora:
    """Read ``adapter_config.json`` and ``adapter_model.safetensors``. Raises BadInput that lists
    everything which cannot be served."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a LoRA adapter's config: {error}") from error
    wrong = list(_unsupported(config))
    if not (folder / WEIGHTS).is_file():
        wrong.append(f"has no {WEIGHTS}: save it again with safe_serialization=True")
    if wrong:
        raise BadInput(*(f"{folder}: {each}" for each in wrong))
    try:
        state = read_weights(folder, as_float=False)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{folder / WEIGHTS}: cannot be read: {error}") from error
    odd = [name for name in state if not _TENSOR_PARTS.intersection(name.split("."))]
    if odd or not state:
        raise BadInput(
            f"{folder / WEIGHTS}: has weights that are not LoRA's ({', '.join(odd[:3]) or 'none'}):"
            " train it without embeddings and whole layers, or merge it and train here"
        )
    # PEFT's target_modules may be an expression or a word for all; the weights say what they are.
    targets = {name.split(".lora_")[0].rpartition(".")[2] for name in state}
    if config.get("use_rslora"):
        alpha *= sqrt(rank)  # rank-stabilized: Kalajdzievski 2023, arXiv 2312.03732
    types = {str(weights.dtype).removeprefix("torch.") for weights in state.values()}
    dtype = "bfloat16" if types == {"bfloat16"} else "float32"
    return ForeignLora(Lora(rank, alpha, tuple(sorted(targets))), state, dtype)


def _unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    if (kind := config.get("peft_type")) != "LORA":
        yield f"is of PEFT's type {kind}: only LORA can be served"
    if (task := config.get("task_type")) not in {"CAUSAL_LM", None}:
        yield (
            f"was trained for {task} and does not answer in words: merge it into its base "
            "(model.merge_and_unload().save_pretrained(DIR)) and import that folder"
        )
    for name, what in _UNSUPPORTED.items():
        if config.get(name):
            yield f"has {what}, which vLLM does not serve next to a base: merge it, or train again"
    if config.get("bias") not in {None, "none"}:
        yield "has trained biases, which vLLM does not serve: train it with bias = none"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        yield (
            f"began with {init}, which changes the base's weights: convert it to plain LoRA with "
            "PEFT's path_initial_model_for_weight_conversion"
        )


# --- The prompt that it learnt ---


@dataclass(frozen=True, slots=True)
class Learnt:
    """One example of the training file: its prompt as the training rendered it, its message, and
    the name and the text of its answer."""

    line: int
    prompt: str
    message: str
    name: str
    answer: str

    @property
    def around(self) -> tuple[str, str]:
        """The texts before and after the message."""
        prefix, _, suffix = self.prompt.rpartition(self.message)
        return prefix, suffix


@dataclass(frozen=True, slots=True)
class LearntPrompt:
    """What an adapter was asked and how it answers: the texts before and after each message, the
    text of each answer with its end, by its name, and the examples."""

    prefix: str
    suffix: str
    answers: Mapping[str, str]
    examples: tuple[Learnt, ...]


def read_learnt(path: Path, adapter: Path, base: Path) -> LearntPrompt:
    """Read the prompt and the answers from a training file: JSON Lines of chats, or of prompts and
    completions. Chats are rendered by the template that was saved with the adapter, else by the
    base's. Raises BadInput."""
    home = adapter if (adapter / "tokenizer_config.json").is_file() else base
    renderer = load_renderer(home, needs_template=False)
    before, _ = special_tokens(base / "tokenizer.json")
    examples: list[Learnt] = []
    try:
        table = read_table(path, path.name)
        cells = dict(table.rows([MESSAGE, LABEL]))
        with path.open(encoding="utf-8", newline="\n") as file:
            records = {at: json.loads(line) for at, line in enumerate(file, 1) if at in cells}
    except (TableError, OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as a training file: {error}") from error
    for line, (message, name) in cells.items():
        form = form_of(records[line])
        if form is None:
            raise BadInput(
                f"{path}: line {line} is not a chat: write the prompts as the training rendered "
                'them, each line {"prompt": "...", "completion": "..."} or {"messages": [...]}'
            )
        prompt, answer = _render(records[line], form, renderer, before)
        if message.strip() and message.strip() in prompt and answer:
            examples.append(Learnt(line, prompt, message.strip(), name, answer))
    if len({each.message for each in examples}) < FEWEST_EXAMPLES:
        raise BadInput(
            f"{path}: has {len(examples)} lines with a message and an answer; the prompt is known "
            f"from {FEWEST_EXAMPLES} different ones: give the training file"
        )
    around = Counter(each.around for each in examples)
    ((prefix, suffix), count), *_ = around.most_common(1)
    if count < _SAME_PROMPT * len(examples):
        other = next(each.line for each in examples if each.around != (prefix, suffix))
        raise BadInput(
            f"{path}: the prompts differ in more than the message (line {other}): a worker sends "
            "the same words around each message"
        )
    return LearntPrompt(prefix, suffix, _answers(path, examples), tuple(examples))


def _answers(path: Path, examples: Sequence[Learnt]) -> dict[str, str]:
    """Return the text of each answer by its name. Raises BadInput for a name with several."""
    texts = {each.name: each.answer for each in examples}
    several = {each.name for each in examples if each.answer != texts[each.name]}
    if several:
        raise BadInput(
            f"{path}: the answer of {', '.join(sorted(several)[:5])} is not always the same text: "
            "a worker knows one for each label"
        )
    return texts


def _render(
    record: Mapping[str, Any], form: str, renderer: Renderer, before: str
) -> tuple[str, str]:
    """Return a line's prompt and its answer up to the end token; empty if it has none."""
    if form == "prompt" and isinstance(record["prompt"], str):
        prompt, answer = record["prompt"], record["completion"].rstrip()
        if not prompt.startswith(before):
            prompt = before + prompt
        return prompt, answer if answer.endswith(renderer.end) else answer + renderer.end
    turns = turns_of(record, form) or []
    trained = (turn.role == "assistant" and turn.trained for turn in turns)
    last = max((at for at, is_trained in enumerate(trained) if is_trained), default=0)
    chat = [{"role": turn.role, "content": turn.text} for turn in turns[: last + 1]]
    if not last:
        return "", ""
    try:
        prompt, whole = renderer(chat[:-1]), renderer(chat, answered=True)
    except ValueError as error:
        raise BadInput(f"the chats do not fit the chat template: {error}") from error
    if not whole.startswith(prompt):
        raise BadInput(
            "the chat template writes something else before an answer in training than in use, "
            "such as a place for thoughts: give prompts and completions as they were rendered"
        )
    return prompt, whole[len(prompt) :].rstrip("\n")
