"""Checks of an adapter: each refusal names the file and the difference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.published import WEIGHTS, Published, publish_encoder
from tests.support.toy_adapter import (
    ENCODERS,
    LABELS,
    encode_control,
    encode_plain,
    toy_head,
    toy_manifest,
)
from worker.contract import (
    MANIFEST_NAME,
    AdapterRefused,
    Code,
    Encoders,
    FileDigest,
    GoldenPrompt,
    Manifest,
    Probe,
    read_manifest,
    tokenizer_directory,
    verify_tokens,
    write_manifest,
)
from worker.contract.digest import sha256_file
from worker.contract.verify import (
    ProbeFile,
    attach_probes,
    probes_path,
    read_probes,
    write_probes,
)

# The base that an adapter was trained on: described by its files, and any other one refused.


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (
            "base/config.json",
            '{"model_type": "other"}',
            r"sha256 .* should be .*; the adapter was trained on toy-base \(main\)",
        ),
        *(
            ("base/config.json", content, "cannot read the base's config")
            for content in ("", "[]", "{", '{"x": NaN}', None)
        ),
        ("base/tokenizer.json", '{"x": 1}', "sha256 is .* and should be"),
        ("base/tokenizer.json", None, "missing; the adapter was trained on toy-base"),
        ("base/model.safetensors", None, "missing"),
        # An engine loads whatever is in a directory.
        ("base/model-2.safetensors", "x", "a weight file that the adapter's base does not have"),
        *(
            (f"adapter/{name}", "x", "is not named in the manifest")
            for name in ("README.md", "more.safetensors", ".hidden", "tokenizer.json")
        ),
        (f"adapter/{WEIGHTS}", None, "missing; adapter toy-1 was altered"),
        (f"adapter/{WEIGHTS}", "lora", "is 4 bytes and should be 12"),
    ],
)
def test_a_file_that_is_not_as_published_is_named(
    published: Published, file: str, content: str | None, problem: str
) -> None:
    """``None``: it is not there."""
    folder, _, name = file.partition("/")
    path = {"base": published.base, "adapter": published.adapter}[folder] / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    published.refused(path, problem)


def test_the_library_that_wrote_a_config_does_not_matter(published: Published) -> None:
    """The same model saved by another version of a library is the same model."""
    path = published.base / "config.json"
    path.write_text('{\n "transformers_version": "6", "_name_or_path": "/x", "model_type": "toy"}')
    assert published.verify() == published.manifest


def test_other_base_weights_are_refused(published: Published) -> None:
    """A LoRA adapter on other weights labels at random, and nobody would notice."""
    path = published.base / "model.safetensors"
    path.write_bytes(b"BASE weights")
    published.refused(path, "sha256 is .* and should be")
    assert published.verify(weights=False) == published.manifest
    path.write_bytes(b"more base weights")
    with pytest.raises(AdapterRefused, match="is 17 bytes and should be 12"):
        published.verify(weights=False)


# Probes next to an adapter: private, of that adapter alone, and never left out silently.


PROBES = (Probe("wo ist mein Päckchen?", "delivery"), Probe("charged twice", "billing"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    write_manifest(directory, toy_manifest())
    return directory


def write(adapter: Path, /, **changes: object) -> Path:
    path = probes_path(adapter)
    file = ProbeFile(read_manifest(adapter).digest, "written", PROBES)
    write_probes(path, replace(file, **changes))  # type: ignore[arg-type]
    return path


def attached(adapter: Path) -> Manifest:
    return attach_probes(read_manifest(adapter), adapter)


def test_an_adapter_is_the_same_with_probes_and_without(adapter: Path) -> None:
    without = attached(adapter)
    assert without.probes == ()
    before = (adapter / MANIFEST_NAME).read_bytes()
    write(adapter)
    found = attached(adapter)
    assert found.probes == PROBES
    assert found.digest == without.digest
    write_manifest(adapter, found)
    assert (adapter / MANIFEST_NAME).read_bytes() == before


def test_the_file_is_for_owner_and_group_whatever_the_umask(adapter: Path) -> None:
    for _ in range(2):
        assert write(adapter).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "ab" * 32}, "another adapter"),
        ({"probes": (Probe("secret words", "nowhere"),)}, "nowhere"),
        ({"schema": "probes/9"}, "not a file of probes"),
    ],
)
def test_probes_that_cannot_be_meant_are_refused(
    adapter: Path, changes: dict[str, object], said: str
) -> None:
    path = write(adapter, **changes)
    with pytest.raises(AdapterRefused) as refused:
        attached(adapter)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", '{"probes": "secret"}', "\ud800"])
def test_a_damaged_file_is_refused_without_its_text(adapter: Path, content: str) -> None:
    probes_path(adapter).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(AdapterRefused, match="not a file of probes") as refused:
        attached(adapter)
    assert "secret" not in str(refused.value)


def test_an_unreadable_file_says_how_to_fix_it(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's user is not in the file's group."""
    path = write(adapter)
    manifest = read_manifest(adapter)

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(AdapterRefused, match="in the file's group"):
        read_probes(path, manifest)


# The adapter's files.


def test_an_altered_file_is_named_with_both_digests(published: Published) -> None:
    path = published.adapter / WEIGHTS
    wanted = published.manifest.files[WEIGHTS].sha256
    path.write_bytes(b"LORA weights")
    found = sha256_file(path)
    published.refused(path, f"sha256 is {found[:16]}… and should be {wanted[:16]}…")


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "run.py", "weights"])
def test_only_weights_and_json_may_be_in_an_adapter(published: Published, name: str) -> None:
    """A pickle runs code when it is loaded."""
    path = published.adapter / name
    path.write_bytes(b"x")
    published.rewrite(files={**published.manifest.files, name: FileDigest(sha256_file(path), 1)})
    published.refused(path, "may have safetensors and JSON files")


@pytest.mark.parametrize(
    "name", ["../base/config.json", "/etc/x.json", "a/b.json", "manifest.json"]
)
def test_a_manifest_names_files_of_its_own_directory_only(published: Published, name: str) -> None:
    published.rewrite(files={**published.manifest.files, name: FileDigest("0" * 64, 1)})
    published.refused(published.adapter / "manifest.json", "names a file outside the adapter")


# The tokenizer.


def shifted(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    return lambda text: [id_ + (id_ == 10 + ord("b")) for id_ in encode(text)]


def test_a_golden_prompt_tokenized_differently_is_refused(published: Published) -> None:
    """A changed tokenizer library is noticed before the first message."""
    other = Encoders(encode_control, shifted(encode_plain), ENCODERS.control_ids)
    published.refused(
        published.base / "tokenizer.json",
        r"tokenizes golden prompt 1 differently .* first difference at token \d+",
        other,
    )


def test_each_fixed_part_is_compared(published: Published) -> None:
    where = published.base / "tokenizer.json"
    spec = published.manifest.prompt
    for part, other in (
        ("the prompt's prefix", replace(spec, prefix_ids=(*spec.prefix_ids, 99))),
        ("the prompt's suffix", replace(spec, suffix_ids=(99, *spec.suffix_ids[1:]))),
        ("the shortening mark", replace(spec, marker_ids=(99,))),
    ):
        manifest = replace(published.manifest, prompt=other)
        with pytest.raises(AdapterRefused, match=f"tokenizes {part} differently"):
            verify_tokens(manifest, ENCODERS, where)


def test_codes_of_several_tokens_are_refused(published: Published) -> None:
    """The engine answers with one token, so such a label could never be given."""
    codes = {**published.manifest.codes, "other": Code("no", 10 + ord("n"))}
    published.rewrite(codes=codes)
    published.refused(published.base / "tokenizer.json", "label 'other' has the code 'no'")


def test_a_tokenizer_that_lets_a_message_use_control_tokens_is_refused(
    published: Published,
) -> None:
    message = "a</s>b"
    spec = published.manifest.prompt
    ids = (*spec.prefix_ids, *encode_control(message), *spec.suffix_ids)
    published.rewrite(golden=(GoldenPrompt(message, ids),))
    leaky = Encoders(encode_control, encode_control, ENCODERS.control_ids)
    published.refused(
        published.base / "tokenizer.json", r"turns message text into control tokens \[2\]", leaky
    )


# Encoders.


def test_an_encoder_that_carries_its_model_needs_no_base(tmp_path: Path) -> None:
    published = publish_encoder(tmp_path)
    shutil.rmtree(published.base)
    assert published.verify() == published.manifest
    where = tokenizer_directory(published.adapter, published.manifest, None)
    assert where == published.adapter
    (published.adapter / "model.int8.onnx").write_bytes(b"model.INT8.onnx")
    published.refused(published.adapter / "model.int8.onnx", "sha256 is")


def test_an_encoder_without_an_onnx_file_needs_its_base(tmp_path: Path) -> None:
    published = publish_encoder(tmp_path, head=toy_head(LABELS, onnx=()))
    assert published.verify() == published.manifest
    shutil.rmtree(published.base)
    published.refused(published.adapter, "needs its base, toy-base: name its directory")


def test_an_onnx_file_that_no_head_names_is_refused(tmp_path: Path) -> None:
    """Only files checked against golden logits may be loaded."""
    published = publish_encoder(tmp_path)
    other = published.adapter / "other.onnx"
    other.write_bytes(b"x")
    published.rewrite(
        files={**published.manifest.files, "other.onnx": FileDigest(sha256_file(other), 1)}
    )
    published.refused(other, "the ONNX files that its head")
