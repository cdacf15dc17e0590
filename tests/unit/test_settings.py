"""The settings: file, environment and flags, each value with its origin, each mistake told."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import RENAMED, Settings
from worker.settings_load import LoadedSettings, effective, load_settings

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings of their own."""
    for name in os.environ:
        if name.startswith("CLERK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file of this content."""

    def make(content: str) -> Path:
        path = tmp_path / "worker.toml"
        path.write_text(content)
        return path

    return make


def shown(loaded: LoadedSettings) -> dict[str, tuple[str, str]]:
    return {name: (value, origin) for name, value, origin in effective(loaded)}


# Where a value comes from.


def test_without_anything_the_defaults_hold() -> None:
    """The worker can be tried on a laptop with no settings at all."""
    loaded = load_settings()
    assert loaded.settings == Settings()
    assert loaded.origins == {}
    assert {origin for _, _, origin in effective(loaded)} == {"default"}


def test_the_environment_wins_over_the_file_and_flags_over_both(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chart sets defaults in a file, a deployment overrides them, a person overrides both."""
    path = write('[kafka]\ngroup_id = "file"\ninput_topic = "file"\noutput_topic = "file"\n')
    monkeypatch.setenv("CLERK_KAFKA__INPUT_TOPIC", "env")
    monkeypatch.setenv("CLERK_KAFKA__OUTPUT_TOPIC", "env")
    loaded = load_settings(path, ["kafka.output_topic=flag"])
    kafka = loaded.settings.kafka
    assert (kafka.group_id, kafka.input_topic, kafka.output_topic) == ("file", "env", "flag")
    told = shown(loaded)
    assert told["kafka.group_id"] == ('"file"', f"file {path}")
    assert told["kafka.input_topic"] == ('"env"', "environment")
    assert told["kafka.output_topic"] == ('"flag"', "flag")
    assert told["kafka.delivery"] == ('"exactly_once"', "default")


def test_the_file_may_be_named_by_the_environment(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a chart does; a path that is given wins."""
    monkeypatch.setenv("CLERK_CONFIG", str(write("[loop]\nmax_in_flight = 7")))
    assert load_settings().settings.loop.max_in_flight == 7
    other = write("[loop]\nmax_in_flight = 8").rename(Path(os.environ["CLERK_CONFIG"]).parent / "o")
    assert load_settings(other).settings.loop.max_in_flight == 8


def test_the_shipped_file_loads() -> None:
    """config/worker.toml is what an operator starts from."""
    path = Path(__file__).parents[2] / "config" / "worker.toml"
    assert load_settings(path).settings.kafka.delivery == "exactly_once"


def test_values_of_every_kind_come_from_every_source(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, switches, lists and paths."""
    path = write('[records]\ntext_fields = ["a.b", "c"]\n[model]\nbase = "/base"\n')
    monkeypatch.setenv("CLERK_RECORDS__TEXT_FIELDS", '["x", "y"]')
    monkeypatch.setenv("CLERK_KAFKA__CREATE_TOPICS", "true")
    monkeypatch.setenv("CLERK_LOOP__DEADLINE_S", "1.5")
    flags = ["records.id_field=meta.id", "loop.max_in_flight=9", "model.verify_weights=false"]
    settings = load_settings(path, flags).settings
    assert settings.records.text_fields == ("x", "y")
    assert settings.records.id_field == "meta.id"
    assert settings.kafka.create_topics is True
    assert (settings.loop.deadline_s, settings.loop.max_in_flight) == (1.5, 9)
    assert settings.model.base == Path("/base")
    assert settings.model.verify_weights is False
    assert load_settings(None, ['records.text_fields=["p"]']).settings.records.text_fields == ("p",)


@pytest.mark.parametrize("text", ["123", "true", "2024-01-01", "1e5", "12#34", "[x]", "a=b", "x y"])
@pytest.mark.parametrize("name", ["kafka.group_id", "kafka.sasl_password", "kafka.instance_id"])
def test_a_flag_for_text_is_taken_as_the_text_it_is(name: str, text: str) -> None:
    """A password of digits is a password, and a # in it is no comment."""
    section, key = name.split(".")
    found = getattr(getattr(load_settings(None, [f"{name}={text}"]).settings, section), key)
    assert (found if isinstance(found, str) else found.get_secret_value()) == text


def test_a_flag_for_text_may_be_quoted() -> None:
    """As it stands in the file."""
    flags = ['kafka.group_id="a b"', "kafka.review_topic="]
    kafka = load_settings(None, flags).settings.kafka
    assert (kafka.group_id, kafka.review_topic) == ("a b", "")


# librdkafka's own names.


@pytest.mark.parametrize(
    "content",
    [
        "[kafka.consumer]\nfetch.min.bytes = 5\nfetch.max.bytes = 6",
        '[kafka.consumer]\n"fetch.min.bytes" = 5\n"fetch.max.bytes" = 6',
        "[kafka.consumer.fetch]\nmin.bytes = 5\nmax = {bytes = 6}",
    ],
)
def test_properties_are_written_as_their_documentation_names_them(
    write: Write, content: str
) -> None:
    """With dots, quoted or not."""
    loaded = load_settings(write(content))
    assert loaded.settings.kafka.consumer == {"fetch.min.bytes": 5, "fetch.max.bytes": 6}


@pytest.mark.parametrize("quoted", [False, True])
def test_properties_add_up_over_the_sources(
    write: Write, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
    """Overriding one property keeps its neighbours, however either is written."""
    names = ("fetch.min.bytes", "fetch.max.bytes", "fetch.wait.max.ms")
    lines = [f'"{name}" = 1' if quoted else f"{name} = 1" for name in names]
    path = write("\n".join(["[kafka.consumer]", *lines]))
    monkeypatch.setenv("CLERK_KAFKA__CONSUMER__FETCH__MIN__BYTES", "2")
    monkeypatch.setenv("CLERK_KAFKA__PRODUCER", '{"linger.ms": 5}')
    loaded = load_settings(path, ["kafka.consumer.fetch.max.bytes=3", "kafka.producer.retries=4"])
    assert loaded.settings.kafka.consumer == {
        "fetch.min.bytes": "2",
        "fetch.max.bytes": 3,
        "fetch.wait.max.ms": 1,
    }
    assert loaded.settings.kafka.producer == {"linger.ms": 5, "retries": 4}


def test_the_last_source_wins_for_a_property_written_three_ways(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precedence does not depend on spelling."""
    path = write('[kafka.client]\n"socket.timeout.ms" = 1')
    monkeypatch.setenv("CLERK_KAFKA__CLIENT", '{"socket": {"timeout": {"ms": 2}}}')
    assert load_settings(path).settings.kafka.client == {"socket.timeout.ms": 2}
    flags = ["kafka.client.socket.timeout.ms=3"]
    assert load_settings(path, flags).settings.kafka.client == {"socket.timeout.ms": 3}


def test_a_property_cut_at_a_comment_sign_would_be_another() -> None:
    """A flag's text stays whole in a property map as well."""
    flags = ["kafka.client.sasl.password=12#34", "kafka.client.ssl.endpoint=a"]
    assert load_settings(None, flags).settings.kafka.client == {
        "sasl.password": "12#34",
        "ssl.endpoint": "a",
    }


# Secrets.


def test_secrets_are_masked_wherever_they_stand(write: Write) -> None:
    """What is printed to help can be pasted into a ticket."""
    path = write(
        """
[kafka]
sasl_password = "hunter2"
ssl_key_password = "hunter2"
[kafka.client]
sasl.password = "hunter2"
ssl.key.password = "hunter2"
ssl.keystore.password = "hunter2"
ssl.key.pem = "hunter2"
sasl.jaas.config = "hunter2"
sasl.oauthbearer.client.secret = "hunter2"
sasl.oauthbearer.assertion.private.key.passphrase = "hunter2"
sasl.username = "me"
[model.engine_args]
hf_token = "hunter2"
max_num_batched_tokens = 4096
nested = {secret = "hunter2", plain = 1}
since = 2024-01-01
"""
    )
    loaded = load_settings(path)
    everything = "\n".join(f"{name} {value}" for name, value, _ in effective(loaded))
    assert "hunter2" not in everything
    assert "hunter2" not in repr(loaded.settings.kafka.sasl_password)
    assert '"sasl.username": "me"' in everything
    assert '"max_num_batched_tokens": 4096' in everything
    assert '"plain": 1' in everything
    assert loaded.settings.kafka.sasl_password is not None
    assert loaded.settings.kafka.sasl_password.get_secret_value() == "hunter2"


def test_a_secret_that_is_not_set_is_shown_as_not_set() -> None:
    """Stars would claim that there is one."""
    told = shown(load_settings())
    assert told["kafka.sasl_password"] == ("null", "default")


@pytest.mark.parametrize("source", ["file", "env", "flag"])
def test_a_mistake_in_a_secret_does_not_tell_it(
    source: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors go to logs."""
    path = write('[kafka]\nsasl_password = ["hunter2"]') if source == "file" else None
    if source == "env":
        monkeypatch.setenv("CLERK_KAFKA__SASL_PASSWORD__X", "hunter2")
    flags = ["kafka.sasl_password.x=hunter2"] if source == "flag" else []
    with pytest.raises(SettingsError) as caught:
        load_settings(path, flags)
    assert "sasl_password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# Mistakes.


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
    """A typo does not leave the default in force unnoticed, whichever way it came in."""
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
    told = {"file": f"file {path}", "env": "environment", "flag": "flag"}[source]
    assert told in str(caught.value)


def test_an_unknown_key_like_nothing_gets_no_suggestion() -> None:
    """A wild guess would mislead."""
    with pytest.raises(SettingsError) as caught:
        load_settings(None, ["zzzz=1"])
    assert str(caught.value) == "no setting is named 'zzzz' (flag)"


@pytest.mark.parametrize("source", ["file", "env", "flag"])
@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_setting_is_refused_with_its_new_name(
    source: str, old: str, new: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade with an old file, environment or command line says what to write instead."""
    path, flags = None, []
    section, key = old.split(".")
    if source == "file":
        path = write(f"[{section}]\n{key} = 0.1")
    elif source == "env":
        monkeypatch.setenv(f"CLERK_{section.upper()}__{key.upper()}", "0.1")
    else:
        flags = [f"{old}=0.1"]
    with pytest.raises(SettingsError) as caught:
        load_settings(path, flags)
    assert f"{old!r} has been renamed to {new!r}" in str(caught.value)
    told = {"file": f"file {path}", "env": "environment", "flag": "flag"}[source]
    assert told in str(caught.value)


def test_a_new_name_beside_the_old_one_does_not_excuse_it(write: Write) -> None:
    """Which of the two is meant is for a person to say."""
    path = write("[drift]\nfalse_alarm_share = 0.1\nfalse_alarm_rate = 0.1")
    with pytest.raises(SettingsError, match=r"renamed to 'drift\.false_alarm_rate'"):
        load_settings(path)


def test_every_renamed_setting_is_gone_and_its_new_name_is_one() -> None:
    """The message never leads to another error."""
    known = set(shown(load_settings()))
    assert not known & RENAMED.keys()
    assert known >= set(RENAMED.values())


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("loop.max_in_flight=0", "loop.max_in_flight: Input should be greater than or equal to 1"),
        ("loop.deadline_s=0", "loop.deadline_s: Input should be greater than 0"),
        ("loop.deadline_s=soon", "loop.deadline_s: Input should be a valid number"),
        ("loop.resume_ratio=1.5", "loop.resume_ratio: Input should be less than or equal to 1"),
        ("kafka.delivery=at_most_once", "kafka.delivery: Input should be 'exactly_once' or"),
        ("kafka.create_topics=maybe", "kafka.create_topics: Input should be a valid boolean"),
        ("records.text_fields=[]", "records.text_fields: Tuple should have at least 1 item"),
        ("review.confidence=2", "review.confidence: Input should be less than or equal to 1"),
        ("kafka.consumer=1", "kafka.consumer: Input should be a valid dictionary"),
        ("kafka=1", "kafka"),
    ],
)
def test_a_bad_value_is_told_with_its_key_and_origin(flag: str, problem: str) -> None:
    """One line a mistake, in the words of the setting."""
    with pytest.raises(SettingsError) as caught:
        load_settings(None, [flag])
    assert problem in str(caught.value)
    assert "(flag)" in str(caught.value)


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    """Not one a restart."""
    path = write("[loop]\nmax_in_flight = 0\n[kafka]\ntypo = 1")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, ["log.level=loud"])
    for part in ("loop.max_in_flight", "kafka.typo", "log.level", f"file {path}", "(flag)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "flags", [["kafka=1", "kafka.group_id=x"], ["log.level=info", "log.level.x=1"]]
)
def test_a_value_where_a_section_belongs_is_told(flags: list[str]) -> None:
    """Also when something is put into it afterwards."""
    with pytest.raises(SettingsError, match=flags[0].split("=")[0]):
        load_settings(None, flags)


def test_a_section_given_as_a_value_in_the_file_is_told(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says of the same section."""
    monkeypatch.setenv("CLERK_KAFKA__GROUP_ID", "x")
    with pytest.raises(SettingsError, match="kafka"):
        load_settings(write("kafka = 3"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[kafka", "is not TOML"),
        (b"a = 1\na = 2", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    """With its path and what is wrong."""
    path = tmp_path / "worker.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"worker\.toml: {problem}"):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A mount that is missing does not leave the defaults in force."""
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            load_settings(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLERK_GROUP_ID", "x"),
        ("CLERK_KAFKA_GROUP_ID", "x"),
        ("CLERK_KAFKA__GROUP__ID", "x"),
        ("CLERK_", "x"),
        ("CLERK_LOG__LEVEL__X", "1"),
    ],
)
def test_a_variable_of_our_prefix_that_names_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A single underscore too few or too many is found at start-up."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"environment variable {name}: no setting"):
        load_settings()


def test_variables_that_are_read_elsewhere_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are other programs'."""
    monkeypatch.setenv("CLERK_CACHE", "/x")
    monkeypatch.setenv("CLERK_TEST_BOOTSTRAP_SERVERS", "x")
    monkeypatch.setenv("KAFKA__GROUP_ID", "x")
    assert load_settings().settings == Settings()


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the message says so."""
    monkeypatch.setenv("CLERK_RECORDS__TEXT_FIELDS", "a,b")
    with pytest.raises(SettingsError, match="given as JSON"):
        load_settings()


@pytest.mark.parametrize("flag", ["kafka.group_id", ""])
def test_a_flag_needs_an_equals_sign(flag: str) -> None:
    """The message shows how it is written."""
    with pytest.raises(SettingsError, match=r"write it as path\.to\.key=value"):
        load_settings(None, [flag])


def test_settings_do_not_change_once_read() -> None:
    """What was printed at the start is what holds."""
    settings: Any = load_settings().settings
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.group_id = "x"
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka = settings.kafka


def test_every_setting_is_shown(write: Write) -> None:
    """Nothing that can be set is left out of what the worker prints."""
    names = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in field.annotation.model_fields  # type: ignore[union-attr]
    }
    assert set(shown(load_settings())) == names
