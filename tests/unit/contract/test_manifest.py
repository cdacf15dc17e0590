"""The manifest: parts by kind, digest, strict reading."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_adapter import (
    SHA,
    cascade_of,
    toy_encoder_manifest,
    toy_head,
    toy_manifest,
    toy_reference,
    toy_spec,
)
from worker.contract import (
    MANIFEST_NAME,
    REDACTION,
    AdapterRefused,
    Calibration,
    FileDigest,
    GoldenLogits,
    HeadOutput,
    Lora,
    Manifest,
    OnnxModel,
    Reference,
    Thresholds,
    read_manifest,
    write_manifest,
)
from worker.contract.codec import encode
from worker.contract.digest import sha256_bytes
from worker.contract.manifest import manifest_digest


def test_the_digest_moves_with_every_part() -> None:
    manifest = toy_manifest()
    others = [
        toy_manifest(name="toy-2"),
        toy_manifest(thresholds=Thresholds(0.61, 0.5)),
        toy_manifest(calibration=Calibration(1.1, 100)),
        toy_manifest(metrics={"accuracy": 0.5}),
        toy_manifest(prompt=toy_spec(33)),
    ]
    assert len({manifest.digest, *(other.digest for other in others)}) == 6
    assert toy_manifest().digest == manifest.digest


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        (("prompt", "redaction"), {"prompt": replace(toy_spec(), redaction=REDACTION)}),
        (("prompt", "prompt_date"), {"prompt": replace(toy_spec(), prompt_date="2026-01-01")}),
        (("reference",), {"reference": Reference({"billing": 1.0}, {"0.05": 0.4}, {})}),
    ],
)
def test_an_optional_part_is_in_the_digest_and_absent_by_default(
    keys: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    plain: Any = json.loads(write_manifest(tmp_path, toy_manifest()).read_text())
    for key in keys[:-1]:
        plain = plain[key]
    assert keys[-1] not in plain
    assert read_manifest(tmp_path).digest == toy_manifest().digest
    write_manifest(tmp_path, made := toy_manifest(**changes))
    assert read_manifest(tmp_path) == made
    assert made.digest != toy_manifest().digest


# The kinds of model: each has its own parts.


LORA = Lora(16, 32.0, ("query",))
OTHER = FileDigest("1" * 64, 1)


def embedding_linear(**changes: Any) -> Manifest:
    return toy_encoder_manifest(**{"kind": "embedding-linear"} | changes)


@pytest.mark.parametrize(
    ("make", "needs_base", "absent"),
    [
        (toy_manifest, True, {"head"}),
        (toy_encoder_manifest, False, {"codes", "decoding", "lora"}),
        (lambda: toy_encoder_manifest(lora=LORA, head=toy_head(onnx=())), True, {"codes"}),
        (embedding_linear, False, {"codes", "decoding", "lora"}),
    ],
    ids=["lora-code", "encoder", "encoder of LoRA weights", "embedding-linear"],
)
def test_each_kind_reads_back_and_lacks_what_it_has_not(
    make: Callable[[], Manifest], needs_base: bool, absent: set[str], tmp_path: Path
) -> None:
    manifest = make()
    data = json.loads(write_manifest(tmp_path, manifest).read_text(encoding="utf-8"))
    assert absent.isdisjoint(data)
    again = read_manifest(tmp_path)
    assert again == manifest
    assert again.digest == manifest.digest
    assert again.needs_base is needs_base
    assert again.answers_with == ("code" if manifest.kind == "lora-code" else "head")


@pytest.mark.parametrize(
    ("make", "changes", "problem"),
    [
        (toy_manifest, {"head": toy_head()}, "kind 'lora-code' has no head"),
        (toy_manifest, {"lora": None}, "kind 'lora-code' needs lora"),
        (
            toy_manifest,
            {"stages": cascade_of(toy_manifest(name="a"), toy_manifest(name="b")).stages},
            "kind 'lora-code' has no stages",
        ),
        (
            toy_manifest,
            {"reference": Reference({"nowhere": 1.0}, {}, {})},
            r"unknown labels: \['nowhere'\]",
        ),
        (toy_manifest, {"thresholds": Thresholds(0.6, None, 1.0)}, "kind 'lora-code' has none"),
        (
            toy_encoder_manifest,
            {"codes": toy_manifest().codes, "decoding": "code"},
            "kind 'encoder' has no codes and no decoding",
        ),
        (
            toy_encoder_manifest,
            {"thresholds": Thresholds(0.6, 0.5)},
            "kind 'encoder' has no off-label mass",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(("billing", "delivery", "lost"))},
            r"has unknown labels: \['lost'\]",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(("billing", "delivery"), onnx=())},
            r"has no output for the labels \['other'\]",
        ),
        (
            toy_encoder_manifest,
            {"head": toy_head(golden_logits=(GoldenLogits(99, (0.0,) * 4),))},
            "golden prompt 99; there are",
        ),
        (
            toy_encoder_manifest,
            {"files": {}},
            r"files lacks the digests .*\['model.int8.onnx', 'model.onnx'",
        ),
        (
            toy_encoder_manifest,
            {"files": dict.fromkeys((*toy_head().files, "tokenizer.json"), OTHER)},
            "carries the tokenizer.json of its base",
        ),
        (
            embedding_linear,
            {"files": dict.fromkeys(toy_head().files, FileDigest(SHA, 1))},
            "carries the tokenizer.json of its base",
        ),
    ],
)
def test_parts_that_contradict_the_kind_are_refused(
    make: Callable[..., Manifest], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        make(**changes)


def test_everything_of_a_head_is_part_of_the_identity() -> None:
    manifest, head = toy_encoder_manifest(), toy_head()
    swapped = (head.outputs[1], head.outputs[0], *head.outputs[2:])
    renamed = (HeadOutput("first", "billing"), *head.outputs[1:])
    others = [
        replace(manifest, head=replace(head, **change))
        for change in (
            {"outputs": swapped},
            {"outputs": renamed},
            {"pooling": "cls"},
            {"normalize": False},
            {"out_of_scope": "max-logit"},
            {"pad_id": 1},
            {"golden_logits": (GoldenLogits(0, (0.0,) * 4),)},
            {"onnx": head.onnx[::-1]},
            {"onnx": (OnnxModel("model.onnx", "int8", 1e-3),)},
        )
    ]
    others.append(replace(manifest, thresholds=Thresholds(0.6, None, -0.4)))
    assert len({manifest.digest, *(other.digest for other in others)}) == len(others) + 1


# The manifest: written whole and last, read strictly.


Mutate = Callable[[dict[str, Any]], object]


def written(directory: Path, mutate: Mutate) -> Path:
    path = write_manifest(directory, toy_manifest())
    data = json.loads(path.read_text())
    mutate(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("mutate", "problem"),
    [
        (lambda d: d.update(schema_version=2), "schema_version is 2 and this version reads 1: pub"),
        (lambda d: d.pop("kind"), r"manifest lacks \['kind'\]"),
        (lambda d: d.update(kind="forest"), "manifest.kind must be one of"),
        (lambda d: d.pop("codes"), "needs a code for every label"),
        (lambda d: d.update(golden=[]), "at least one golden prompt"),
        (lambda d: d["calibration"].update(temperature=0), "temperature is 0.0"),
        (lambda d: d["prompt"].update(normalization="v9"), "normalization 'v9' is unknown"),
        (lambda d: d["prompt"].update(prompt_date="today"), "prompt_date 'today' must be a day"),
        (lambda d: d["prompt"].update(max_message_tokens=1), "leaves no message"),
        (lambda d: d.update(metrics={"f1": float("nan")}), "Out of range float"),
        (lambda d: d.update(data={"x": "\ud800"}), "surrogates not allowed"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_with_the_place(
    tmp_path: Path, mutate: Mutate, problem: str
) -> None:
    path = written(tmp_path, mutate)
    with pytest.raises(AdapterRefused, match=problem) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == path
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_anything_but_a_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(AdapterRefused) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST_NAME


def test_a_manifest_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """An interrupted copy is not served."""
    path = write_manifest(tmp_path, toy_manifest())
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, 997):
        path.write_bytes(whole[:end])
        with pytest.raises(AdapterRefused):
            read_manifest(tmp_path)


def test_a_directory_without_a_manifest_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="missing: not a published adapter"):
        read_manifest(tmp_path)
    with pytest.raises(AdapterRefused, match="no such adapter directory"):
        read_manifest(tmp_path / "nowhere")


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    """A NaN among the metrics stops the trainer, not a worker weeks later."""
    with pytest.raises(ValueError, match="Out of range"):
        write_manifest(tmp_path, toy_manifest(metrics={"f1": float("nan")}))
    assert list(tmp_path.iterdir()) == []


# An adapter's digest is that of its manifest's JSON, whatever the classes call its fields.


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
).filter(lambda value: "Infinity" not in json.dumps(value))


def backwards(value: Any) -> Any:
    """The same JSON value, its keys in another order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(inner) for inner in value] if isinstance(value, list) else value


def rewritten(value: Any) -> Any:
    """The same JSON value as a tool may write it: whole numbers with or without a fraction."""
    if isinstance(value, dict):
        return {key: rewritten(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rewritten(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def test_the_digest_is_one_literal_value() -> None:
    data = {"b": [8.0, 0.1, -0.0, 1e-07, True, None, "ü"], "a": {"ä": 1e3}, "schema_version": 1}
    canonical = '{"a":{"ä":1000},"b":[8,0.1,0,1e-07,true,null,"ü"],"schema_version":1}'
    assert manifest_digest(data) == sha256_bytes(canonical.encode())


@given(any_json)
def test_formatting_key_order_and_number_form_do_not_count(value: Any) -> None:
    data = {"value": value, "schema_version": 1}
    digest = manifest_digest(data)
    assert manifest_digest(backwards(data)) == digest
    assert manifest_digest(rewritten(data)) == digest
    assert manifest_digest(json.loads(json.dumps(data, indent=7))) == digest


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, True), (0, False), (8, "8"), (None, 0), (8, 8.000001), ({}, {"key": None}), ([], {})],
)
def test_other_values_have_other_digests(first: Any, second: Any) -> None:
    assert manifest_digest({"data": first}) != manifest_digest({"data": second})


def test_in_memory_written_and_read_are_one_digest(tmp_path: Path) -> None:
    manifest = toy_manifest(
        lora=Lora(16, 32, ("q_proj",)), calibration=Calibration(1, 10, nll=0.25), data={"n": [8.0]}
    )
    path = write_manifest(tmp_path, manifest)
    found = read_manifest(tmp_path)
    assert found == manifest
    assert found.digest == manifest.digest == manifest_digest(json.loads(path.read_text()))


def test_a_changed_copy_of_a_manifest_that_was_read_has_a_digest_of_its_own(
    tmp_path: Path,
) -> None:
    write_manifest(tmp_path, toy_manifest())
    found = read_manifest(tmp_path)
    changed = replace(found, name="other", reference=toy_reference())
    assert changed.digest == manifest_digest(encode(changed)) != found.digest
    write_manifest(tmp_path, changed)
    assert read_manifest(tmp_path).digest == changed.digest
