"""A whole training in seconds: a random two-layer Llama with a tokenizer of its own, and a data
set that it can learn."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.dataset.examples import Example
from trainer.dataset.folder import write_dataset
from trainer.model.student import LoraModel, load_student
from worker.contract import Taxonomy

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = {
    "order_tracking": ["where", "parcel", "tracking", "arrive"],
    "refund": ["money", "back", "refund", "paid"],
    "payment": ["card", "declined", "invoice", "charged"],
}
FILLERS = ["please", "my", "the", "hello", "today", "thanks", "it", "is", "still", "now"]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a base model: 2 layers, 32 wide, about 400 tokens."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    text = [" ".join([*FILLERS, *words]) for words in WORDS.values()] * 20
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=400,
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
def make_student(tiny_base: Path) -> Callable[..., LoraModel]:
    """Return a function that puts a new adapter on the tiny base; every choice can be given."""
    usual = {
        "rank": 4,
        "alpha": 8.0,  # a float, as in a recipe: a manifest's digest is over its JSON
        "dropout": 0.0,
        "base_dtype": "float32",
        "attention": "eager",
        "device": "cpu",
        "gradient_checkpointing": False,
    }

    def make(**choices: object) -> LoraModel:
        return load_student(tiny_base, **(usual | choices))

    return make


@pytest.fixture(scope="session")
def taxonomy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a taxonomy of three labels."""
    path = tmp_path_factory.mktemp("taxonomy") / "taxonomy.toml"
    labels = "".join(f'[[labels]]\nname = "{name}"\ndescription = "d"\n' for name in WORDS)
    path.write_text(f'name = "tiny"\nversion = "1"\n{labels}', encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_messages() -> Callable[[int, int], list[tuple[str, str]]]:
    """Return a function (count per label, seed) -> unlike (message, label) pairs."""

    def make(count: int, seed: int) -> list[tuple[str, str]]:
        rng = random.Random(seed)
        pairs = []
        for label, words in WORDS.items():
            for number in range(count):
                chosen = rng.sample(words, 2) + rng.sample(FILLERS, rng.randint(1, 5))
                rng.shuffle(chosen)
                pairs.append((f"{' '.join(chosen)} {seed}{number}", label))
        return pairs

    return make


@pytest.fixture(scope="session")
def dataset_dir(
    tmp_path_factory: pytest.TempPathFactory,
    taxonomy_file: Path,
    make_messages: Callable[[int, int], list],
) -> Path:
    """Return a dataset folder of 20 training, 4 validation and 6 hold-out messages a label, with
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
