"""docs/kafka.md: its settings are settings, the client takes them, and the chart's values say the
same."""

from __future__ import annotations

import json
import re
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.render import merge
from worker.common.kafka import TokenCallback
from worker.config_check import settings_problems
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kafka.md").read_text(encoding="utf-8")
# Certificates are not here; the module that gives tokens is on the page itself.
ELSEWHERE = re.compile(r"/etc/kafka/.* cannot be read|'our_tokens' cannot be imported")
# What the chart takes from the Secrets that auth names.
FROM_SECRETS = {"sasl_username", "ssl_ca_location"}


def blocks(language: str, text: str = PAGE) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def parts() -> dict[str, str]:
    """The sections that show settings and what chart values they become."""
    sections = re.split(r"^###? (.+)\n", PAGE, flags=re.MULTILINE)
    named = dict(zip(sections[1::2], sections[2::2], strict=True))
    return {
        name: text for name, text in named.items() if blocks("toml", text) and blocks("yaml", text)
    }


def flat(kafka: dict[str, Any]) -> dict[str, Any]:
    """The effective settings of the section kafka."""
    return Settings.model_validate({"kafka": kafka}).kafka.model_dump()


def test_each_provider_has_both() -> None:
    """A renamed heading does not make the checks hold."""
    assert set(parts()) == {"Confluent Cloud", "By SCRAM", "By IAM", "Azure Event Hubs", "Redpanda"}


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_settings_are_taken_by_the_worker_and_its_client(text: str) -> None:
    """With the password from its Secret; nothing is wrong but files that are elsewhere, and without
    those the client has to be content."""
    if "sasl_username" in text:
        text = text.replace("[kafka]\n", '[kafka]\nsasl_password = "x"\n', 1)
    problems = settings_problems(Settings.model_validate(tomllib.loads(text)))
    assert [str(each) for each in problems if not ELSEWHERE.search(str(each))] == []
    here = re.sub(r"^(ssl_.*_location|sasl_token_callback) = .*\n", "", text, flags=re.MULTILINE)
    assert settings_problems(Settings.model_validate(tomllib.loads(here))) == []


@pytest.mark.parametrize("name", parts())
def test_the_charts_values_say_the_same(name: str) -> None:
    """Setting by setting, but for what comes from Secrets, which are named."""
    (toml,), (values,) = blocks("toml", parts()[name]), blocks("yaml", parts()[name])
    given, chart = tomllib.loads(toml)["kafka"], yaml.safe_load(values)
    secret = {key for key in given if key in FROM_SECRETS}
    plain = {key: value for key, value in given.items() if key not in secret}
    assert flat(chart["config"]["kafka"]) == flat(plain)
    auth = chart.get("auth", {})
    assert bool(auth.get("sasl", {}).get("secret")) is ("sasl_username" in secret)
    assert bool(auth.get("tls", {}).get("caSecret")) is ("ssl_ca_location" in secret)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_charts_schema_takes_the_values(text: str) -> None:
    """Typing errors included; over the defaults, as Helm validates them."""
    defaults = yaml.safe_load((ROOT / "helm/filing-clerk/values.yaml").read_text("utf-8"))
    schema = json.loads((ROOT / "helm/filing-clerk/values.schema.json").read_text("utf-8"))
    jsonschema.validate(merge(defaults, yaml.safe_load(text)), schema)


def test_the_function_for_tokens_gives_what_the_client_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seconds, where Amazon's library counts milliseconds."""
    expiry_ms = (time.time() + 900) * 1000

    class Provider:
        @staticmethod
        def generate_auth_token(region: str) -> tuple[str, float]:
            return f"signed for {region}", expiry_ms

    library = ModuleType("aws_msk_iam_sasl_signer")
    library.MSKAuthTokenProvider = Provider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    (source,) = blocks("python")
    module: dict[str, Any] = {}
    exec(source, module)
    token = TokenCallback("our_tokens:kafka_token", module["kafka_token"], print).token("")
    assert token == ("signed for eu-central-1", pytest.approx(expiry_ms / 1000))
