"""A base with the shape of a 7B, or a small one, made on the spot with random weights.

What such a model says is worth nothing; it computes as long, and as much, as a real one. Weights
are drawn and written a file at a time, so that no more than one is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

SHAPES: dict[str, dict[str, Any]] = {
    # config.json of Qwen2.5-7B-Instruct.
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "sliding_window": 131072,
        "rope_theta": 1_000_000.0,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "max_window_layers": 2,
        "rope_theta": 10_000.0,
    },
}

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LEARNED = 1024
"""Tokens that are learned from the messages; the rest of the vocabulary is never said."""

_PADDED = 418
"""Rows of Qwen2.5's tables above its last token: 152,064 of 151,646. Here above a quarter of it."""

_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPREAD = 0.02
_FILE_BYTES = 2_000_000_000


def make_base(directory: Path, shape: str, texts: list[str], device: str, seed: int = 1) -> None:
    """Write a base of that shape into a new directory: config, tokenizer, weights in bfloat16.

    ``texts`` are what the tokenizer is learned from, ``device`` where the weights are drawn.
    """
    directory.mkdir(parents=True)
    sizes = SHAPES[shape]
    tokenizer = make_tokenizer(texts, sizes["vocab_size"])
    tokenizer.save_pretrained(directory)
    config = Qwen2Config(
        **sizes,
        hidden_act="silu",
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_sliding_window=False,
        bos_token_id=tokenizer.convert_tokens_to_ids(_CONTROL[0]),
        eos_token_id=tokenizer.convert_tokens_to_ids(_CONTROL[2]),
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    )
    config.save_pretrained(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    write_weights(directory, dict(model.state_dict()), device, seed)


def make_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer with as many tokens as a base of that vocabulary has.

    Those that are not learned from ``texts`` are fillers that no text is ever made of, so that ids
    and tables are as large as the real ones.
    """
    control = vocabulary - (_PADDED if vocabulary > 4 * _PADDED else 0) - len(_CONTROL)
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(_LEARNED, control),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learned.train_from_iterator(texts, trainer)
    model = json.loads(learned.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    vocab |= {f"<unused-{number}>": number for number in range(len(vocab), control)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(_CONTROL))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=_CONTROL[2],
        pad_token=_CONTROL[0],
        chat_template=_CHAT,
        clean_up_tokenization_spaces=False,
    )


def write_weights(directory: Path, shapes: dict[str, Tensor], device: str, seed: int) -> None:
    """Draw weights of these shapes (tensors without memory) and write them, with their index."""
    generator = torch.Generator(device).manual_seed(seed)
    files = list(_files(shapes))
    index: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        drawn = {one: _draw(one, shapes[one], generator).cpu() for one in names}
        save_file(drawn, directory / name, metadata={"format": "pt"})
        index |= dict.fromkeys(names, name)
    total = sum(2 * one.numel() for one in shapes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _files(shapes: dict[str, Tensor]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if names and size + 2 * shape.numel() > _FILE_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * shape.numel()
    yield names


def _draw(name: str, shape: Tensor, generator: torch.Generator) -> Tensor:
    made = torch.empty(shape.shape, dtype=torch.bfloat16, device=generator.device)
    if "norm" in name:
        return made.fill_(1.0)
    return made.normal_(0.0, _SPREAD, generator=generator)
