"""Policies made from the settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.core.pipeline import ADMISSION_S, SLOWEST_MESSAGE_S
from worker.errors import SettingsError
from worker.policies import (
    admission_policy,
    kafka_config,
    loop_policy,
    max_iteration_s,
    transactional_id,
)
from worker.settings import KafkaSettings, ModelSettings, Settings


def test_an_engine_that_works_on_more_at_once_is_given_more() -> None:

    def most(**engine_args: object) -> int:
        return admission_policy(
            Settings(model=ModelSettings(engine_args=engine_args))
        ).max_in_engine

    assert (most(), most(max_num_seqs=16), most(max_num_seqs=1024)) == (256, 256, 1024)


def test_an_iteration_may_prepare_publish_three_times_and_be_revoked() -> None:
    config = kafka_config(KafkaSettings(publish_timeout_s=10.0))
    assert max_iteration_s(config, loop_policy(Settings())) == (
        72.0 + 2 * (ADMISSION_S + SLOWEST_MESSAGE_S)
    )


def test_a_stable_name_makes_a_stable_transactional_id() -> None:
    """A restarted worker then aborts its predecessor's transaction at once."""
    assert transactional_id(KafkaSettings(group_id="g", instance_id="pod-0")) == "g.pod-0"


def test_without_a_stable_name_each_producer_has_its_own() -> None:
    """Two with the same id would fence each other."""
    made = {transactional_id(KafkaSettings(group_id="g")) for _ in range(3)}
    assert len(made) == 3
    assert all(name.startswith("g.") and f".{os.getpid()}." in name for name in made)


def test_a_password_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter two \n")
    kafka = KafkaSettings(
        security_protocol="sasl_ssl",
        sasl_mechanism="PLAIN",
        sasl_username="clerk",
        sasl_password_file=path,
    )
    assert kafka_config(kafka).common["sasl.password"] == "hunter two "
    both = kafka.model_copy(update={"sasl_password": SecretStr("x")})
    for settings, said in (
        (both, "both set"),
        (
            kafka.model_copy(update={"sasl_password_file": tmp_path / "none"}),
            "cannot be read: No such",
        ),
        (kafka.model_copy(update={"sasl_password_file": tmp_path}), "cannot be read: Is a dir"),
    ):
        with pytest.raises(SettingsError, match=said):
            kafka_config(settings)
    path.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        kafka_config(kafka)


def test_a_function_that_gives_tokens_is_for_oauthbearer_alone() -> None:
    name = "tests.support.unsigned_token:token"
    kafka = KafkaSettings(
        security_protocol="sasl_ssl", sasl_mechanism="OAUTHBEARER", sasl_token_callback=name
    )
    config = kafka_config(kafka)
    assert callable(config.consumer["oauth_cb"])
    assert callable(config.producer["oauth_cb"])
    assert config.origins["oauth_cb"] == "kafka.sasl_token_callback"
    with pytest.raises(SettingsError, match="set it to OAUTHBEARER"):
        kafka_config(kafka.model_copy(update={"sasl_mechanism": "PLAIN"}))
