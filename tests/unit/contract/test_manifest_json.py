"""The manifest: written whole and last, read strictly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract import (
    MANIFEST_NAME,
    AdapterRefused,
    Calibration,
    Thresholds,
    read_manifest,
    write_manifest,
)

Mutate = Callable[[dict[str, Any]], object]


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives, and so does the adapter's identity."""
    manifest = toy_manifest(
        data={"rows": 3, "nested": {"a": [1, None, "ü"]}},
        metrics={"macro_f1": 0.9},
        calibration=Calibration(1.5, 10, nll=0.25),
        thresholds=Thresholds(None),
    )
    path = write_manifest(tmp_path, manifest)
    assert path == tmp_path / MANIFEST_NAME
    again = read_manifest(tmp_path)
    assert again == manifest
    assert again.digest == manifest.digest


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
        (lambda d: d.pop("schema_version"), "schema_version is None and this version reads 1"),
        (lambda d: d.update(schema_version=True), "schema_version is True and this version reads"),
        (lambda d: d.update(schema_version=1.0), "schema_version is 1.0 and this version reads"),
        (lambda d: d.update(schema_version=[]), r"schema_version is \[\] and this version reads"),
        (lambda d: d.update(extra=1), r"manifest has unknown keys \['extra'\]"),
        (lambda d: d["base"].update(revison="x"), r"manifest.base has unknown keys \['revison'\]"),
        (lambda d: d.pop("kind"), r"manifest lacks \['kind'\]"),
        (lambda d: d.update(kind="forest"), "manifest.kind must be one of"),
        (lambda d: d.pop("codes"), "needs a code for every label"),
        (lambda d: d.pop("lora"), "kind 'lora-code' needs lora"),
        (lambda d: d.pop("decoding"), "kind 'lora-code' needs decoding"),
        (lambda d: d["lora"].pop("rank"), r"manifest.lora lacks \['rank'\]"),
        (lambda d: d["lora"].update(rank="16"), "manifest.lora.rank must be int, not str"),
        (lambda d: d["lora"].update(rank=16.5), "manifest.lora.rank must be int, not float"),
        (lambda d: d.update(decoding="beam"), r"manifest.decoding must be one of \['code', 'cho"),
        (lambda d: d.update(golden=[]), "at least one golden prompt"),
        (lambda d: d.update(golden={}), "manifest.golden must be a list"),
        (lambda d: d.update(codes=[]), "manifest.codes must be an object"),
        (lambda d: d["codes"].pop("other"), "needs a code for every label"),
        (lambda d: d["calibration"].update(temperature=0), "temperature is 0.0"),
        (lambda d: d["calibration"].update(temperature=-1), "temperature is -1.0"),
        (lambda d: d["calibration"].update(temperature=None), "temperature must be float"),
        (lambda d: d["calibration"].update(temperature=float("inf")), "temperature is inf"),
        (lambda d: d["prompt"].update(normalization="v9"), "normalization 'v9' is not known"),
        (lambda d: d["prompt"].pop("normalization"), r"prompt lacks \['normalization'\]"),
        (lambda d: d["prompt"].update(redaction="v9"), "redaction 'v9' is not known"),
        (lambda d: d["prompt"].update(prompt_date="today"), "prompt_date 'today' is no day"),
        (lambda d: d["prompt"].update(prompt_date="20260101"), "prompt_date '20260101' is no day"),
        (lambda d: d["prompt"].update(max_message_tokens=1), "leaves no message"),
        (lambda d: d["prompt"]["prefix_ids"].append("x"), r"prefix_ids\[\d+\] must be int"),
        (lambda d: d["taxonomy"]["labels"].pop(), "needs a code for every label"),
        (lambda d: d["taxonomy"].update(labels=[]), "has 0 labels"),
        (lambda d: d["taxonomy"].update(digest="x"), r"unknown keys \['digest'\]"),
        (lambda d: d.update(metrics={"f1": float("nan")}), "Out of range float"),
        (lambda d: d.update(data={"x": "\ud800"}), "surrogates not allowed"),
        (lambda d: d.update(name=None), "manifest.name must be str, not NoneType"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_with_the_place(
    tmp_path: Path, mutate: Mutate, problem: str
) -> None:
    """Whoever made the adapter reads which file and which key."""
    path = written(tmp_path, mutate)
    with pytest.raises(AdapterRefused, match=problem) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == path
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    """Also a file that is empty, cut, binary or made to break a parser."""
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(AdapterRefused) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST_NAME


def test_a_manifest_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """A copy that broke off half-way is not served."""
    path = write_manifest(tmp_path, toy_manifest())
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, 997):
        path.write_bytes(whole[:end])
        with pytest.raises(AdapterRefused):
            read_manifest(tmp_path)


def test_a_directory_without_a_manifest_is_no_adapter(tmp_path: Path) -> None:
    """The manifest is written last: without it the publishing did not finish."""
    with pytest.raises(AdapterRefused, match="missing: this is no published adapter"):
        read_manifest(tmp_path)
    with pytest.raises(AdapterRefused, match="no such adapter directory"):
        read_manifest(tmp_path / "nowhere")


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    """A NaN among the metrics stops the trainer, not a worker weeks later."""
    with pytest.raises(ValueError, match="Out of range"):
        write_manifest(tmp_path, toy_manifest(metrics={"f1": float("nan")}))
    assert list(tmp_path.iterdir()) == []
