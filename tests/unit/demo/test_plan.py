"""The demo's options: the user's settings, topic, messages and model, checked before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.published import publish, publish_encoder
from tests.support.toy_adapter import LABELS
from worker.contract import read_manifest
from worker.contract.store import Pointer, write_pointer
from worker.demo import plan as module
from worker.demo.models import adapter_dir
from worker.demo.plan import Wish, make_plan
from worker.errors import SettingsError
from worker.offline.message_files import MessageFile
from worker.settings import load_settings


def effective(wish: Wish, tmp_path: Path) -> Any:
    """Return the settings that the demo's worker gets."""
    plan = make_plan(wish)
    flags = plan.flags("localhost:1", plan.make_model(lambda _: None))
    return load_settings(None, [f"{name}={value}" for name, value in flags.items()]).settings


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "ensure_base_model", lambda **_: tmp_path / "small")
    monkeypatch.setattr("worker.demo.models.ensure_base_model", lambda **_: tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose current adapter needs no base."""
    (tmp_path / "made").mkdir()
    made = publish_encoder(tmp_path / "made")
    store = tmp_path / "my store"
    store.mkdir()
    made.adapter.rename(store / made.manifest.digest)
    write_pointer(
        store,
        Pointer(
            made.manifest.digest,
            made.manifest.name,
            "2026-01-01T00:00:00Z",
            None,
            "ann",
            None,
            "publish",
        ),
    )
    return store


def test_settings_topic_and_messages_of_the_user_reach_the_worker(tmp_path: Path) -> None:
    wish = Wish(
        5,
        sets=(
            "kafka.input_topics=tickets",
            "kafka.output_topic=filed",
            "loop.max_in_flight=7",
            "records.text_fields=body",
        ),
    )
    plan, settings = make_plan(wish), effective(wish, tmp_path)
    assert settings.kafka.input_topics == ("tickets",)
    assert (settings.loop.max_in_flight, settings.records.text_fields) == (7, ("body",))
    assert plan.topic == "tickets"
    assert plan.kinds["filed"] == "output"
    assert plan.kinds["filed.corrections"] == "correction"
    assert settings.kafka.bootstrap_servers == "localhost:1"
    assert settings.model.adapter == adapter_dir()


@pytest.mark.parametrize("as_setting", [False, True])
def test_a_store_shows_the_users_own_model(store: Path, tmp_path: Path, as_setting: bool) -> None:
    """The store and not the adapter in it, so that the next publication is seen too."""
    own: dict[str, Any] = (
        {"sets": (f"model.adapter={store}",)} if as_setting else {"model": str(store)}
    )
    wish = Wish(3, **own)
    plan, settings = make_plan(wish), effective(wish, tmp_path)
    assert plan.manifest.taxonomy.names == LABELS
    assert (settings.model.adapter, settings.model.base) == (store, None)
    # The samples are a shop's, and this model has other labels.
    assert {(sample.label, sample.known) for sample in plan.samples} == {(None, False)}


def test_a_language_model_needs_its_base(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    made = publish(tmp_path / "made")
    with pytest.raises(SettingsError, match=r"needs its base, toy-base: give -s model\.base=DIR"):
        make_plan(Wish(1, model=str(made.adapter)))
    wish = Wish(1, model=str(made.adapter), sets=(f"model.base={made.base}",))
    assert effective(wish, tmp_path).model.base == made.base


def test_messages_come_from_a_file_with_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "tickets.csv"
    label = read_manifest(adapter_dir()).taxonomy.names[0]
    file.write_text(f"body,category\nwhere is it?,{label}\nodd,none\nwho knows,\nx,other\n")
    messages = MessageFile(str(file), field="body", label_field="category")
    plan = make_plan(Wish(9, messages=messages))
    assert [(each.message, each.label, each.known) for each in plan.samples] == [
        ("where is it?", label, True),
        ("odd", None, True),
        ("who knows", None, False),
        ("x", None, False),
    ]
    assert len(make_plan(Wish(2, messages=messages)).samples) == 2


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (Wish(1, model="encodr"), "--model encodr: choose adapter, encoder, cascade, or"),
        (Wish(1, sets=("kafka.grop_id=x",)), "did you mean 'kafka.group_id'"),
        (Wish(1, sets=('kafka.input_topics=["a","b"]',)), "publishes to one topic"),
        (Wish(1, sets=("records.format=text",)), "publishes JSON objects"),
        (Wish(1, messages=MessageFile("nowhere.csv")), r"nowhere\.csv: cannot read it"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(wish: Wish, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        make_plan(wish)
    assert "\n" not in str(caught.value)


def test_settings_of_another_worker_do_not_change_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal in which a production worker's variables are set publishes no samples to it."""
    monkeypatch.setenv("CLERK_KAFKA__BOOTSTRAP_SERVERS", "production:9092")
    monkeypatch.setenv("CLERK_KAFKA__INPUT_TOPICS", "real")
    monkeypatch.setenv("CLERK_MODEL__ADAPTER", "/adapters")
    wish = Wish(1)
    plan = make_plan(wish)
    assert (plan.servers, plan.topic, plan.own_model) == (None, "support.messages", None)
    assert effective(wish, tmp_path).model.adapter == adapter_dir()
    assert make_plan(Wish(1, sets=("kafka.bootstrap_servers=k:1",))).servers == "k:1"
