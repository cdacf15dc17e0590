"""``key=value`` on a command line."""

import re
from typing import Any

import pytest

from worker.common.settings import split_assignment, toml_value


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("rank=8", ("rank", "8")),
        (" rank = 8 ", ("rank", " 8 ")),
        ("sasl.password=a=b c", ("sasl.password", "a=b c")),
        ("name=", ("name", "")),
    ],
)
def test_the_first_equals_sign_divides(text: str, pair: tuple[str, str]) -> None:
    assert split_assignment(text, "--set") == pair


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rank", "rank"),
        ("", ""),
        ("=8", "..."),
        (" =8", "..."),
        ("kafka.sasl_password:hunter2", "kafka.sasl_password..."),
    ],
)
def test_malformed_assignments_are_refused_with_the_right_form(text: str, shown: str) -> None:
    with pytest.raises(ValueError, match=f"^--set {re.escape(shown)}: write it as key=value$"):
        split_assignment(text, "--set")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"quoted"', "quoted"),
        ("plain words", "plain words"),
        ("", ""),
        ("1e5x", "1e5x"),
    ],
)
def test_a_value_is_toml_or_text(text: str, value: Any) -> None:
    assert toml_value(text) == value
