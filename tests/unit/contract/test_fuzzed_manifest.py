"""Any manifest is read, or refused with AdapterRefused."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.toy_adapter import (
    one_golden,
    small_manifest,
    toy_encoder_manifest,
    toy_spec,
)
from worker.contract import MANIFEST_NAME, AdapterRefused, Manifest, read_manifest
from worker.contract.codec import encode

pytestmark = pytest.mark.slow

WHOLE: Any = encode(small_manifest())
HEAD: Any = encode(toy_encoder_manifest(golden=one_golden(toy_spec())))

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["nfc-2", "pii-2", "code", "encoder", "../x", "\ud800", "0" * 64, 1e308, -1, 2**70]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def outcome(content: bytes) -> Manifest | AdapterRefused:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_NAME).write_bytes(content)
        try:
            return read_manifest(Path(folder))
        except AdapterRefused as refused:
            return refused


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the steps that lead there."""
    found = [at] if at else []
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, below in inner:
        found += places(below, (*at, key))
    return found


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"schema_version": ' + b"9" * 5000 + b"}")
def test_any_bytes_are_refused(content: bytes) -> None:
    assert isinstance(outcome(content), AdapterRefused)


@settings(max_examples=300)
@given(st.sampled_from([WHOLE, HEAD]), st.data())
def test_a_manifest_with_anything_anywhere_is_read_or_refused(whole: Any, data: Any) -> None:
    changed = copy.deepcopy(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(changed)))
        inner = changed
        for step in way:
            inner = inner[step]
        if data.draw(st.booleans()):
            inner[last] = data.draw(anything)
        else:
            del inner[last]
        if not changed:
            return
    found = outcome(json.dumps(changed).encode())
    assert isinstance(found, Manifest | AdapterRefused)
