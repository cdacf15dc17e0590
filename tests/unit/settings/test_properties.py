"""librdkafka's properties, in any spelling and from any source."""

import pytest

from tests.unit.settings.conftest import Write
from worker.settings import load_settings


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
    loaded = load_settings(write(content))
    assert loaded.settings.kafka.consumer == {"fetch.min.bytes": 5, "fetch.max.bytes": 6}


@pytest.mark.parametrize("quoted", [False, True])
def test_properties_add_up_over_the_sources(
    write: Write, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
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


def test_a_property_cut_at_a_comment_sign_would_be_another() -> None:
    """TOML would end the value at the #."""
    flags = ["kafka.client.sasl.password=12#34", "kafka.client.ssl.endpoint=a"]
    assert load_settings(None, flags).settings.kafka.client == {
        "sasl.password": "12#34",
        "ssl.endpoint": "a",
    }
