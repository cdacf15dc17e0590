"""An adapter's digest is that of its manifest's JSON, whatever the classes call its fields."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_adapter import toy_manifest, toy_reference
from worker.contract import Calibration, Lora, read_manifest, write_manifest
from worker.contract.codec import encode
from worker.contract.digest import sha256_bytes
from worker.contract.manifest_digest import manifest_digest

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
    """The canonical form is a promise to every store: it never moves by accident."""
    data = {"b": [8.0, 0.1, -0.0, 1e-07, True, None, "ü"], "a": {"ä": 1e3}, "schema_version": 1}
    canonical = '{"a":{"ä":1000},"b":[8,0.1,0,1e-07,true,null,"ü"],"schema_version":1}'
    assert manifest_digest(data) == sha256_bytes(canonical.encode())


@given(any_json)
def test_formatting_key_order_and_number_form_do_not_count(value: Any) -> None:
    """What a JSON tool may change without changing the value."""
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
    """A key that is null is not one that is absent, and a number is not its text."""
    assert manifest_digest({"data": first}) != manifest_digest({"data": second})


def test_in_memory_written_and_read_are_one_digest(tmp_path: Path) -> None:
    """Also where an integer was given for a float, which the reader makes a float again."""
    manifest = toy_manifest(
        lora=Lora(16, 32, ("q_proj",)), calibration=Calibration(1, 10, nll=0.25), data={"n": [8.0]}
    )
    path = write_manifest(tmp_path, manifest)
    found = read_manifest(tmp_path)
    assert found == manifest
    assert found.digest == manifest.digest == manifest_digest(json.loads(path.read_text()))


def test_a_manifest_keeps_the_digest_of_the_json_it_was_read_from(tmp_path: Path) -> None:
    """A key that may be absent is not filled in: the file is what is named, not the classes."""
    path = write_manifest(tmp_path, toy_manifest())
    data = json.loads(path.read_text())
    del data["versions"], data["calibration"]["nll"]
    path.write_text(json.dumps(data))
    found = read_manifest(tmp_path)
    assert found.digest == manifest_digest(data)
    assert found.digest != manifest_digest(encode(found))


def test_a_changed_copy_of_a_manifest_that_was_read_has_a_digest_of_its_own(
    tmp_path: Path,
) -> None:
    """The digest as read does not travel into a copy."""
    write_manifest(tmp_path, toy_manifest())
    found = read_manifest(tmp_path)
    changed = replace(found, name="other", reference=toy_reference())
    assert changed.digest == manifest_digest(encode(changed)) != found.digest
    write_manifest(tmp_path, changed)
    assert read_manifest(tmp_path).digest == changed.digest
