"""Secrets are never shown."""

import pytest

from tests.unit.settings.conftest import Write, shown
from worker.errors import SettingsError
from worker.settings import effective, load_settings


def test_secrets_are_redacted_wherever_they_stand(write: Write) -> None:
    path = write(
        """
[kafka]
sasl_password = "hunter2"
sasl_token_callback = "my_tokens:token"
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
sasl.oauthbearer.token.endpoint.url = "https://id.example/token"
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
    # They only say where a token comes from, and are what a mistake is looked for in.
    assert '"sasl.oauthbearer.token.endpoint.url": "https://id.example/token"' in everything
    assert "my_tokens:token" in everything
    assert '"max_num_batched_tokens": 4096' in everything
    assert '"plain": 1' in everything
    assert loaded.settings.kafka.sasl_password is not None
    assert loaded.settings.kafka.sasl_password.get_secret_value() == "hunter2"


def test_a_secret_that_is_not_set_is_shown_as_not_set() -> None:
    """Asterisks would claim that it is set."""
    values = shown(load_settings())
    assert values["kafka.sasl_password"] == ("null", "default")


@pytest.mark.parametrize("source", ["file", "env", "flag"])
def test_a_mistake_in_a_secret_does_not_show_it(
    source: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[kafka]\nsasl_password = ["hunter2"]') if source == "file" else None
    if source == "env":
        monkeypatch.setenv("CLERK_KAFKA__SASL_PASSWORD__X", "hunter2")
    flags = ["kafka.sasl_password.x=hunter2"] if source == "flag" else []
    with pytest.raises(SettingsError) as caught:
        load_settings(path, flags)
    assert "sasl_password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
