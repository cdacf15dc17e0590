"""The smoke run on a CPU takes settings that fit, or says that none do."""

from __future__ import annotations

import tomllib

import pytest

from tests.gpu.fit import TooLittleMemory, fitting_settings

GB = 10**9
SEVEN_B = int(15.2 * GB)


def test_a_7b_gets_small_settings_where_it_was_killed_with_the_defaults() -> None:
    """24 GB with other programs beside it, where they served it; 32 GB take the defaults."""
    (one,) = fitting_settings(SEVEN_B, 22 * GB, [])
    key, _, value = one.partition("=")
    assert key == "model.engine_args"
    assert tomllib.loads(f"it = {value}")["it"] == {
        "max_num_batched_tokens": 1024,
        "kv_cache_memory_bytes": 200_000_000,
        "max_num_seqs": 2,
    }
    assert fitting_settings(SEVEN_B, 32 * GB, []) == []


def test_a_small_shape_takes_the_defaults() -> None:
    assert fitting_settings(20_000_000, 8 * GB, []) == []


def test_what_is_given_is_taken() -> None:
    """Whoever names engine arguments knows what they try."""
    assert fitting_settings(SEVEN_B, GB, ["model.engine_args={max_num_seqs=1}"]) == []
    assert len(fitting_settings(SEVEN_B, 22 * GB, ["loop.deadline_s=3600"])) == 1


def test_what_cannot_fit_is_said_before_minutes_have_passed() -> None:
    """With both numbers, and the settings to try all the same."""
    with pytest.raises(TooLittleMemory, match=r"14\.2 GiB takes about .* and 14\.9 GiB are free"):
        fitting_settings(SEVEN_B, 16 * GB, [])
