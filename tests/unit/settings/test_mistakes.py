"""Mistakes in settings are reported with key, origin and fix."""

from pathlib import Path

import pytest

from tests.unit.settings.conftest import Write
from worker.errors import SettingsError
from worker.settings import Settings, load_settings


@pytest.mark.parametrize("source", ["file", "env", "flag"])
@pytest.mark.parametrize(
    ("section", "key", "suggestion"),
    [
        ("kafka", "groupid", "kafka.group_id"),
        ("loop", "max_inflight", "loop.max_in_flight"),
        ("kafak", "group_id", "kafka"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(
    source: str,
    section: str,
    key: str,
    suggestion: str,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A typo must not leave the default in force unnoticed."""
    path, flags = None, []
    if source == "file":
        path = write(f"[{section}]\n{key} = 1")
    elif source == "env":
        monkeypatch.setenv(f"CLERK_{section.upper()}__{key.upper()}", "1")
    else:
        flags = [f"{section}.{key}=1"]
    with pytest.raises(SettingsError) as caught:
        load_settings(path, flags)
    assert f"no setting is named '{section}" in str(caught.value)
    assert f"did you mean '{suggestion}" in str(caught.value)
    origin = {"file": f"file {path}", "env": "environment", "flag": "flag"}[source]
    assert origin in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("loop.max_in_flight=0", "loop.max_in_flight: Input should be greater than or equal to 1"),
        ("loop.deadline_s=soon", "loop.deadline_s: Input should be a valid number"),
        ("review.confidence=1.5", "review.confidence: Input should be less than or equal to 1"),
        ("kafka.delivery=at_most_once", "kafka.delivery: Input should be 'exactly_once' or"),
        ("records.text_fields=[]", "records.text_fields: Tuple should have at least 1 item"),
        ("review.out_of_scope=nan", "review.out_of_scope: Input should be a finite number"),
    ],
)
def test_a_bad_value_is_reported_with_key_and_origin(flag: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, [flag])
    assert problem in str(caught.value)
    assert "(flag)" in str(caught.value)


def test_all_mistakes_are_reported_at_once(write: Write) -> None:
    """Not one per restart."""
    path = write("[loop]\nmax_in_flight = 0\n[kafka]\ntypo = 1")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, ["log.level=loud"])
    for part in ("loop.max_in_flight", "kafka.typo", "log.level", f"file {path}", "(flag)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[kafka", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
    ],
)
def test_an_invalid_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"worker\.toml: {problem}"):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            load_settings(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLERK_GROUP_ID", "x"),
        ("CLERK_KAFKA__GROUP__ID", "x"),
        ("CLERK_LOG__LEVEL__X", "1"),
    ],
)
def test_a_variable_of_our_prefix_that_names_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"environment variable {name}: no setting"):
        load_settings()


def test_variables_that_are_read_elsewhere_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLERK_CACHE", "/x")
    monkeypatch.setenv("CLERK_TEST_BOOTSTRAP_SERVERS", "x")
    monkeypatch.setenv("KAFKA__GROUP_ID", "x")
    assert load_settings().settings == Settings()


def test_a_broken_list_is_named_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLERK_MODEL__BASES", '["/a", hush')
    with pytest.raises(SettingsError, match=r"^model\.bases \(environment\): .* JSON") as caught:
        load_settings()
    assert "hush" not in str(caught.value)
