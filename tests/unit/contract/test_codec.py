"""Dataclasses to JSON and back: every difference is named by its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.codec import LEAVE_OUT_EMPTY, Pattern, Probability, Range, decode, encode


@dataclass(frozen=True, slots=True)
class Inner:
    """A part with a default."""

    size: int
    share: Probability = 0.5


@dataclass(frozen=True, slots=True)
class Outer:
    """Every kind of field that the contract's records have."""

    name: Annotated[str, Pattern(r"^[a-z]+$")]
    kind: Literal["a", "b", 1]
    parts: tuple[Inner, ...]
    by_name: Mapping[str, Annotated[float, Range(-1, 1)]]
    maybe: Inner | None
    anything: Any
    later: str | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    kept_beside: str | None = field(default=None, init=False, compare=False)


GOOD: dict[str, Any] = {
    "name": "x",
    "kind": "a",
    "parts": [{"size": 1, "share": 0.25}],
    "by_name": {"y": 0.5},
    "maybe": None,
    "anything": [None, {"z": True}],
}


inners = st.builds(Inner, st.integers(), st.floats(0, 1))


@given(
    st.builds(
        Outer,
        st.from_regex(r"[a-z]+", fullmatch=True),
        st.sampled_from(["a", "b", 1]),
        st.lists(inners, max_size=3).map(tuple),
        st.dictionaries(st.text(), st.floats(-1, 1), max_size=3),
        st.none() | inners,
        st.none() | st.booleans() | st.text(),
        st.none() | st.text(),
    )
)
def test_what_is_encoded_is_decoded_to_the_same(record: Outer) -> None:
    assert decode(Outer, json.loads(json.dumps(encode(record))), "it") == record


def test_a_field_that_came_later_is_left_out_where_it_is_none() -> None:
    record = decode(Outer, GOOD, "it")
    assert encode(record) == GOOD
    assert "later" in encode(decode(Outer, {**GOOD, "later": "x"}, "it"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"extra": 1}, r"it has unknown keys \['extra'\]"),
        ({"name": 1}, "it.name must be str, not int"),
        ({"name": "X1"}, r"it.name does not match \^\[a-z\]\+\$"),
        ({"kind": "c"}, r"it.kind must be one of \['a', 'b', 1\]"),
        ({"parts": {}}, "it.parts must be a list"),
        ({"parts": [{}]}, r"it.parts\[0\] lacks \['size'\]"),
        ({"parts": [{"size": True}]}, r"it.parts\[0\].size must be int, not bool"),
        ({"parts": [{"size": 1, "share": 2}]}, r"share is 2.0; it must be from 0 to 1"),
        ({"by_name": {"y": -2}}, "it.by_name.y is -2.0; it must be from -1 to 1"),
        ({"by_name": {"y": float("nan")}}, "it.by_name.y is nan"),
    ],
)
def test_each_difference_is_named_by_its_place(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}" if problem.startswith("it") else problem):
        decode(Outer, {**GOOD, **change}, "it")


def test_unknown_keys_can_be_passed_over_at_any_depth() -> None:
    """An older consumer reads records of a newer worker."""
    data = {**GOOD, "extra": 1, "parts": [{"size": 1, "share": 0.25, "extra": {}}]}
    assert decode(Outer, data, "it", skip_unknown=True) == decode(Outer, GOOD, "it")
