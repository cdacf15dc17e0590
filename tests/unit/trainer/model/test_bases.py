"""Bases are found on this machine by a manifest's digests, or by a recipe's kind and name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.toy_adapter import toy_manifest
from trainer.dataset.folder import Dataset
from trainer.errors import BadInput
from trainer.model import bases
from trainer.model.bases import Wanted, base_to_train, describe_source, resolve_base
from trainer.training.recipe import Recipe, with_base
from worker.common import base_model
from worker.contract import BaseModel, Manifest, describe_base

COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"


AUTO = Path("auto")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is installed, and the cache of downloads is empty. Return the cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(base_model, "_EMBEDDING_PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(bases, "downloads", lambda: cache)
    return cache


def make_base(directory: Path, weights: bytes = b"weights") -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def download(cache: Path, repository: str, weights: bytes = b"weights", at: str = COMMIT) -> Path:
    folder = f"models--{repository.replace('/', '--')}"
    return make_base(cache / folder / "snapshots" / at, weights)


def needing(base: Path, name: str = "Some-7B") -> Manifest:
    found: BaseModel = describe_base(base, name, "1")
    return toy_manifest(base=found)


def test_an_adapters_base_is_found_among_the_downloads_by_its_digests(
    tmp_path: Path, machine: Path
) -> None:
    """Not by its name, which anyone may give to anything."""
    download(machine, "Some/Some-7B", b"another revision"[:7])
    right = download(machine, "Copy/Of-It", b"the right weights")
    assert resolve_base("auto", needing(right)) == right


def test_the_base_that_the_run_names_is_tried_first(tmp_path: Path, machine: Path) -> None:
    download(machine, "Some/Some-7B")
    own = make_base(tmp_path / "models" / "own")
    assert resolve_base("auto", needing(own), others=(tmp_path / "gone", own)) == own


def test_a_base_that_is_nowhere_is_an_error_with_its_name_and_the_flag(tmp_path: Path) -> None:
    wanted = needing(make_base(tmp_path / "elsewhere"))
    with pytest.raises(BadInput, match=r"Some-7B \(1\).* not found .*--base DIR") as caught:
        resolve_base("auto", wanted)
    assert "\n" not in str(caught.value)


def test_a_recipe_gets_the_base_of_its_name(machine: Path) -> None:
    found = download(machine, "Qwen/Qwen2.5-7B-Instruct")
    download(machine, "Qwen/Qwen2.5-14B-Instruct")
    assert base_to_train(AUTO, "lora-code", "Qwen2.5-7B-Instruct") == found
    assert describe_source(found) == ("Qwen2.5-7B-Instruct", COMMIT)


def test_two_revisions_of_a_recipes_base_are_ambiguous(machine: Path) -> None:
    both = [download(machine, "Qwen/Qwen2.5-7B-Instruct", at=at) for at in ("aa", "bb")]
    with pytest.raises(BadInput, match="--base") as caught:
        base_to_train(AUTO, "lora-code", "Qwen2.5-7B-Instruct")
    assert all(str(each) in str(caught.value) for each in both)


def test_without_a_name_the_kind_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped base of each kind: the demo's for codes, the installed one for encoders."""
    small = make_base(tmp_path / "small")
    package = tmp_path / "an_encoder_in_a_wheel"
    make_base(package / "model")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(base_model, "_EMBEDDING_PACKAGE", package.name)
    monkeypatch.setattr(bases, "ensure_base_model", lambda **_: small)
    assert base_to_train(AUTO, "lora-code", "") == small
    assert base_to_train(AUTO, "encoder", "") == package / "model"
    assert base_to_train(AUTO, "embedding-linear", "") == package / "model"
    assert describe_source(package / "model")[0] == "all-MiniLM-L6-v2"
    assert describe_source(small) == ("small", "local")


# Without a name and of several: by the messages.


def encoder(cache: Path, name: str, layers: int, width: int, language: str = "en") -> Path:
    folder = download(cache, f"some/{name}")
    (folder / "1_Pooling").mkdir()
    shape = {"num_hidden_layers": layers, "hidden_size": width}
    (folder / "config.json").write_text(json.dumps(shape))
    (folder / "README.md").write_text(f"---\nlanguage: {language}\n---\n" if language else "")
    return folder


def chosen(messages: int, **languages: int) -> str:
    return describe_source(base_to_train(AUTO, "encoder", "", Wanted(messages, languages)))[0]


def test_a_larger_encoder_is_taken_for_enough_messages(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder(machine, "small", 6, 384)
    assert chosen(5000, en=100) == "small"
    assert not capsys.readouterr().err  # nothing was chosen
    encoder(machine, "middle", 12, 384)
    encoder(machine, "large", 12, 768)  # eight times the arithmetic: only if a person says so
    encoder(machine, "nameless", 12, 384, language="")
    make_base(machine / "models--some--chat/snapshots/1")  # not an encoder of sentences
    assert chosen(999, en=100) == "small"
    capsys.readouterr()
    assert chosen(1000, en=100) == "middle"
    said = capsys.readouterr().err
    assert "base: middle (12 layers of 384), chosen for 1,000 messages" in said
    assert "small (6 layers of 384, about 2.0 times its messages/s)" in said


def test_an_encoder_that_knows_the_languages_comes_first(machine: Path) -> None:
    encoder(machine, "english", 12, 384)
    encoder(machine, "many", 12, 768, "[en, de]")
    assert chosen(5000, en=50, de=50) == "many"
    assert chosen(5000, en=99, de=1) == "english"
    assert chosen(5000, en=50, fr=50) == "english"  # the training warns
    for broken in ("{", "[]", "{}"):
        folder = encoder(machine, f"broken{len(broken)}{broken[0]}", 1, 1)
        (folder / "config.json").write_text(broken)
    assert chosen(5000, en=50) == "english"


def test_a_recipe_is_chosen_for_its_dataset(
    machine: Path, tmp_path: Path, sealed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder(machine, "small", 6, 384)
    encoder(machine, "middle", 12, 384)
    monkeypatch.setattr(bases, "_ENOUGH", len(sealed.train))
    recipe = Recipe(kind="encoder", dataset=sealed.directory, run=tmp_path)
    assert with_base(recipe).base_name == "middle"
    monkeypatch.setattr(bases, "_ENOUGH", len(sealed.train) + 1)
    assert with_base(recipe).base_name == "small"
