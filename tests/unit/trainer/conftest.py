"""Fixtures for trainings in seconds: a random two-layer Llama with its tokenizer, a dataset that it
can learn, an adapter on it, a sealed hold-out, and an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support.tiny_encoder import make_tiny_encoder
from tests.support.tiny_messages import FILLERS, WORDS, write_tiny_taxonomy
from tests.support.tiny_messages import make_messages as make_messages_of
from tests.support.trainer_world import World, call
from trainer.dataset.folder import Dataset, Example, write_dataset
from trainer.model.lora_model import CONFIG, WEIGHTS, LoraModel, load_lora_model
from trainer.model.prompt import load_renderer, load_tokenizer, make_prompt
from worker.contract import (
    Calibration,
    FileDigest,
    Manifest,
    Taxonomy,
    Thresholds,
    describe_base,
    make_golden,
    write_manifest,
)
from worker.contract.digest import sha256_file

ROOT = Path(__file__).parents[3]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a base model: 2 layers, 32 wide, about 400 tokens."""
    text = [" ".join([*FILLERS, *words]) for words in WORDS.values()] * 20
    return make_tiny_base(tmp_path_factory.mktemp("base"), text, vocab_size=400)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random BERT: 2 layers, 32 wide."""
    text = [" ".join([*FILLERS, *words]) for words in WORDS.values()] * 20
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder"), text)


@pytest.fixture(scope="session")
def encoder_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, sealed: Dataset
) -> Path:
    """Return the run folder of an encoder fine-tuned on the sealed dataset."""
    run = tmp_path_factory.mktemp("encoder") / "run"
    code, _, error = call(
        *("train", "--recipe", ROOT / "config" / "trainer-encoder.toml", "--json"),
        *("--dataset", sealed.directory, "--base", tiny_encoder, "--out", run),
        *("--set", "max_message_tokens=100", "--set", "epochs=4", "--set", "batch_size=16"),
        *("--set", "learning_rate=3e-3", "--set", "head_learning_rate=3e-2"),
        *("--set", "mixed_precision=no"),
    )
    assert code == 0, error
    return run


def make_tiny_base(directory: Path, text: Iterable[str], *, vocab_size: int) -> Path:
    """Write a random base of 2 layers into a directory, with a tokenizer trained on ``text``."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=controls,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def make_lora_model(tiny_base: Path) -> Callable[..., LoraModel]:
    """Return a function that puts a new adapter on the tiny base."""
    usual: dict[str, Any] = {
        "rank": 4,
        "alpha": 8.0,  # a float, as in a recipe: a manifest's digest is over its JSON
        "dropout": 0.0,
        "base_dtype": "float32",
        "attn_implementation": "eager",
        "device": "cpu",
        "gradient_checkpointing": False,
    }

    def make(**choices: Any) -> LoraModel:
        return load_lora_model(tiny_base, **(usual | choices))

    return make


@pytest.fixture(scope="session")
def taxonomy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a taxonomy of three labels."""
    return write_tiny_taxonomy(tmp_path_factory.mktemp("taxonomy"))


@pytest.fixture(scope="session")
def make_messages() -> Callable[[int, int], list[tuple[str, str]]]:
    """Return a function (count per label, seed) -> distinct (message, label) pairs."""

    return make_messages_of


@pytest.fixture(scope="session")
def dataset_dir(
    tmp_path_factory: pytest.TempPathFactory,
    taxonomy_file: Path,
    make_messages: Callable[[int, int], list[tuple[str, str]]],
) -> Path:
    """Return a dataset folder with 20 training, 4 validation and 6 hold-out messages per label, and
    finer labels."""
    directory = tmp_path_factory.mktemp("data") / "dataset"
    parts = {}
    for seed, (part, count) in enumerate((("train", 20), ("validation", 4), ("holdout", 6))):
        parts[part] = [
            Example(f"{part}-{at}", message, label, f"{label}.{at % 2}")
            for at, (message, label) in enumerate(make_messages(count, seed))
        ]
    write_dataset(directory, name="tiny", taxonomy=Taxonomy.from_toml(taxonomy_file), splits=parts)
    return directory


@pytest.fixture(scope="session")
def sealed(
    tmp_path_factory: pytest.TempPathFactory,
    taxonomy_file: Path,
    make_messages: Callable[[int, int], list[tuple[str, str]]],
) -> Dataset:
    """Return a dataset of three labels, each with two sublabels."""

    def examples(count: int, seed: int) -> list[Example]:
        return [
            Example(f"{seed}-{at}", message, label, f"{label}/{at % 2}")
            for at, (message, label) in enumerate(make_messages(count, seed))
        ]

    return write_dataset(
        tmp_path_factory.mktemp("sealed") / "dataset",
        name="tiny",
        taxonomy=Taxonomy.from_toml(taxonomy_file),
        splits={
            "train": examples(30, 1),
            "validation": examples(10, 2),
            "holdout": examples(12, 3),
        },
    )


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Path,
    sealed: Dataset,
    make_lora_model: Callable[..., LoraModel],
) -> World:
    """Return an adapter with random weights, whose answers are bad and varied."""
    directory = tmp_path_factory.mktemp("run") / "adapter"
    directory.mkdir()
    tokenizer = load_tokenizer(tiny_base)
    spec, codes = make_prompt(
        sealed.taxonomy,
        tokenizer.encoders,
        load_renderer(tiny_base),
        instruction="Answer with the letter.",
        list_labels=False,
        descriptions=False,
        max_message_tokens=64,
        prefix_block=None,
    )
    model = make_lora_model()
    torch.manual_seed(1)
    state = {name: torch.randn_like(weights) / 2 for name, weights in model.state_dict().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(model.adapter_config("tiny")), encoding="utf-8")
    manifest = Manifest(
        name="tiny-adapter",
        created_at="2026-01-01T00:00:00Z",
        kind="lora-code",
        base=describe_base(tiny_base, "tiny", "1"),
        taxonomy=sealed.taxonomy,
        prompt=spec,
        decoding="code",
        codes=codes,
        lora=model.lora,
        calibration=Calibration(1.5, 30),
        thresholds=Thresholds(0.6, math.nextafter(1.0, 0.0)),
        golden=make_golden(spec, tokenizer.encoders),
        files={
            name: FileDigest(sha256_file(directory / name), (directory / name).stat().st_size)
            for name in (WEIGHTS, CONFIG)
        },
        data={"digest": sealed.digest, "recipe": {"review_precision": 0.6}},
    )
    write_manifest(directory, manifest)
    return World(directory, tiny_base, sealed, manifest)


@pytest.fixture(scope="session")
def evaluated(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an evaluation with out-of-scope messages, and its record."""
    outside = tmp_path_factory.mktemp("outside") / "odd.jsonl"
    outside.write_text(
        "".join(json.dumps({"message": f"odd {at} zebra"}) + "\n" for at in range(5))
    )
    out = tmp_path_factory.mktemp("results") / "evaluation"
    code, record, _ = call(
        *("evaluate", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", out, "--out-of-scope", outside, "--wanted-precision", 0.5, "--json"),
    )
    assert code == 0
    return out, record
