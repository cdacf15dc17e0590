"""Small random encoders of every architecture that the trainer names, with their tokenizers."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ARCHITECTURES = ("bert", "roberta", "modernbert", "deberta")

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}


def make_tiny_encoder(
    directory: Path, text: Iterable[str], architecture: str = "bert", *, vocab_size: int = 400
) -> Path:
    """Write a random encoder of 2 layers into a directory, with a tokenizer trained on ``text``."""
    from transformers import PreTrainedTokenizerFast  # takes seconds

    special = ["<pad>", "<s>", "</s>", "<unk>"] if architecture == "roberta" else None
    special = special or ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    bytes_ = architecture in {"roberta", "modernbert"}
    tokenizer = _bytes(special, text, vocab_size) if bytes_ else _words(special, text, vocab_size)
    pad, first, last, unknown = special
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (first, last)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        cls_token=first,
        sep_token=last,
        unk_token=unknown,
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config: dict[str, Any] = _SMALL | {
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": tokenizer.token_to_id(pad),
        "max_position_embeddings": 128,
    }
    _model(architecture, config).save_pretrained(directory)
    return directory


def _model(architecture: str, config: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModel

    more: dict[str, Any] = {}
    if architecture == "roberta":
        more = {"max_position_embeddings": 130}
    elif architecture == "modernbert":
        more = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
        more |= {"local_attention": 16}
    elif architecture == "deberta":
        more = {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        }
    name = "deberta-v2" if architecture == "deberta" else architecture
    with warnings.catch_warnings():  # DeBERTa's module uses what PyTorch will drop one day
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoModel.from_config(AutoConfig.for_model(name, **config | more))


def _words(special: list[str], text: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of letters and frequent words. The library's own trainer breaks ties at
    random, and a random encoder would differ with the tokenizer."""
    normalizer, pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for line in text:
        words.update(
            word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))
        )
    letters = sorted({letter for word in words for letter in word})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    pieces += sorted(words, key=lambda word: (-words[word], word))
    vocab = {piece: at for at, piece in enumerate(dict.fromkeys(pieces[:vocab_size]))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=special[3]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _bytes(special: list[str], text: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer
