"""Embeddings are pooled from the last layer's states, of length one, from files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from trainer.model.embeddings import embed
from trainer.model.encoder import POOLING_FILE

pytestmark = pytest.mark.slow

TEXTS = ["where is my parcel", "refund", "card declined twice please refund my card", "", "my"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("encoder")
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {one: at for at, one in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(directory)
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    return directory


def test_vectors_are_unit_long_repeatable_and_do_not_depend_on_their_batch(encoder: Path) -> None:
    found = embed(TEXTS, encoder)
    assert found.shape == (5, 16)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.array_equal(found, embed(TEXTS, encoder))
    alone = np.concatenate([embed([text], encoder) for text in TEXTS])
    assert np.abs(found - alone).max() < 1e-5


def test_a_vector_is_the_mean_over_the_tokens(encoder: Path) -> None:
    from transformers import BertModel

    model = BertModel.from_pretrained(encoder).eval()
    with torch.inference_mode():
        states = model(torch.tensor([[2, 4 + _word("refund"), 3]])).last_hidden_state[0]
    mean = states.mean(dim=0).numpy()
    found = embed(["refund"], encoder)[0]
    assert found == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_a_vector_is_the_first_token_where_the_folder_says_so(
    encoder: Path, tmp_path: Path
) -> None:
    from transformers import BertModel

    base = shutil.copytree(encoder, tmp_path / "base")
    (base / "1_Pooling").mkdir()
    (base / POOLING_FILE).write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    with torch.inference_mode():
        states = BertModel.from_pretrained(base).eval()(torch.tensor([[2, 4 + _word("refund"), 3]]))
    first = states.last_hidden_state[0, 0].numpy()
    assert embed(["refund"], base)[0] == pytest.approx(first / np.linalg.norm(first), abs=1e-5)


def test_a_long_text_is_cut_to_the_models_own_limit(encoder: Path) -> None:
    long, cut = embed(["my card declined twice please refund", "my card declined twice"], encoder)
    assert long == pytest.approx(cut, abs=1e-5)


def _word(word: str) -> int:
    return sorted({known for text in TEXTS for known in text.split()}).index(word)
