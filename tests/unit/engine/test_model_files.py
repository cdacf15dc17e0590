"""Bases and tokenizers, found by the digests of their files."""

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.support.published import Published, publish
from tests.support.tiny_onnx import write_tiny_encoder
from worker.contract import AdapterRefused, read_manifest
from worker.engine.model_files import Bases, load_encoders


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
    encoders = load_encoders(base)
    assert len(encoders.plain("twelve chars")) == len(encoders.control("twelve chars")) == 12


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AdapterRefused, match="not a tokenizer"):
        load_encoders(tmp_path)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return publish(tmp_path)


def another(base: Path, target: Path, content: bytes = b"other weights") -> Path:
    shutil.copytree(base, target)
    (target / "model.safetensors").write_bytes(content)
    return target


def test_a_base_is_found_among_others_and_in_a_folder_of_them(
    published: Published, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    wanted = another(published.base, folder / "renamed", b"base weights")
    other = another(published.base, folder / "other")
    for directories in ([other, wanted], [wanted, other], [folder], [other, folder]):
        assert Bases(directories).find(published.adapter, published.manifest) == wanted


def test_a_single_base_that_is_another_is_refused_with_the_difference(
    published: Published, tmp_path: Path
) -> None:
    other = another(published.base, tmp_path / "other", b"BASE weights")
    with pytest.raises(AdapterRefused, match=r"sha256 is .* trained on toy-base") as caught:
        Bases([other]).find(published.adapter, published.manifest)
    assert caught.value.path == other / "model.safetensors"


def test_a_base_that_is_not_among_several_is_named(published: Published, tmp_path: Path) -> None:
    others = [another(published.base, tmp_path / f"other-{n}", b"%d" % n) for n in range(2)]
    with pytest.raises(AdapterRefused, match=r"toy-base .* is not among the 2 base models"):
        Bases(others).find(published.adapter, published.manifest)
    with pytest.raises(AdapterRefused, match=r"name its directory in model\.base"):
        Bases([]).find(published.adapter, published.manifest)


def test_altered_weights_of_the_right_size_are_refused_where_weights_are_read(
    published: Published, tmp_path: Path
) -> None:
    bases = [another(published.base, tmp_path / "a", b"BASE weights"), tmp_path / "nowhere"]
    with pytest.raises(AdapterRefused, match="sha256 is"):
        Bases(bases).find(published.adapter, published.manifest)
    found = Bases(bases, verify_weights=False).find(published.adapter, published.manifest)
    assert found == bases[0]


def test_an_encoder_brings_its_tokenizer(tmp_path: Path) -> None:
    bases = Bases([])
    one, two = (write_tiny_encoder(tmp_path / f"{seed}", seed=seed) for seed in range(2))
    encoders = bases.encoders(one, read_manifest(one))
    assert encoders.control("[CLS]") == [2]
    assert bases.encoders(two, read_manifest(two)) is encoders
