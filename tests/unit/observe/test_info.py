"""The content of ``/info`` before and after the model is loaded."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from tests.support.toy_adapter import ENCODERS, small_manifest
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.observe.observer import describe_worker
from worker.serving import make_adapter_router
from worker.settings import KafkaSettings, ModelSettings, Settings

STARTED = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
SECRET = "s3cr3t"
SETTINGS = Settings(
    kafka=KafkaSettings(
        group_id="clerks",
        sasl_username="clerk",
        sasl_password=SecretStr(SECRET),
        ssl_key_password=SecretStr(SECRET),
        client={"sasl.oauthbearer.client.secret": SECRET, "ssl.key.pem": SECRET},
        consumer={"fetch.min.bytes": 1, "sasl.jaas.config": SECRET},
    ),
    model=ModelSettings(engine_args={"hf_token": SECRET, "max_num_seqs": 64}),
)


def info(opened: OpenedEngine | None) -> dict[str, Any]:
    serving = None if opened is None else make_adapter_router(SETTINGS, opened, lambda _: None)
    return dict(json.loads(json.dumps(describe_worker(SETTINGS, STARTED, opened, serving))))


def test_it_says_which_adapter_on_which_base_with_which_labels() -> None:
    manifest = small_manifest()
    engine = FakeEngine(lambda _: ValueError())
    engine.precisions = ("bf16",)
    found = info(OpenedEngine(engine, manifest, ENCODERS, "merged"))
    assert found["adapter"]["digest"] == manifest.digest
    assert found["adapter"]["name"] == manifest.name
    [serving] = found["adapters"]
    assert (serving["role"], serving["digest"], serving["share"]) == ("main", manifest.digest, 1)
    assert found["adapter"]["precisions"] == serving["precisions"] == ["bf16"]
    assert serving["since"] == found["adapter"]["since"]
    assert found["base"] == {"name": "toy-base", "revision": "main"}
    assert found["taxonomy"]["labels"] == list(manifest.taxonomy.names)
    assert found["taxonomy"]["version"] == manifest.taxonomy.version
    assert (found["serving"], found["decoding"]) == ("merged", "code")


def test_no_secret_is_shown() -> None:
    found = info(None)
    assert SECRET not in json.dumps(found)
    settings = found["settings"]
    assert settings["kafka.sasl_password"] == "********"
    assert settings["kafka.sasl_username"] == "clerk"
    assert settings["kafka.consumer"]["fetch.min.bytes"] == 1
    assert settings["model.engine_args"]["max_num_seqs"] == 64
