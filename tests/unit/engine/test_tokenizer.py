"""Control tokens in a message are text."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from worker.contract import AdapterRefused
from worker.engine.tokenizer import load_encoders


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tokenizer of single bytes with one special and one merely added control token."""
    vocab = {one: number for number, one in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.add_tokens(["<|fim|>"])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|fim|>"])
def test_a_control_token_in_a_message_stays_text(base: Path, mark: str) -> None:
    encoders = load_encoders(base)
    assert len(encoders.control(mark)) == 1
    assert set(encoders.control(mark)) <= encoders.control_ids
    assert len(encoders.plain(mark)) == len(mark)
    assert encoders.control_ids.isdisjoint(encoders.plain(mark))


def test_nothing_is_cut_or_padded(base: Path) -> None:
    """Whatever the tokenizer's file says of it."""
    encoders = load_encoders(base)
    assert len(encoders.plain("twelve chars")) == len(encoders.control("twelve chars")) == 12


def test_a_base_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="missing"):
        load_encoders(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AdapterRefused, match="no tokenizer"):
        load_encoders(tmp_path)
