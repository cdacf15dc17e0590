"""Redaction of names by Presidio, with a spaCy pipeline and rules that the tests write, so that no
model has to be downloaded."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.dataset.conftest import Prepare, Record
from trainer.dataset.names import NAME, load_names, replace_spans
from trainer.errors import BadInput
from worker.contract.redact import PLACEHOLDERS

NAMES = ("Ann Example", "Bob Sample", "Zoë Muster")
RULES = """
supported_languages: [en, de]
nlp_configuration:
  nlp_engine_name: no_op
  models:
    - {lang_code: en, model_name: no_op}
    - {lang_code: de, model_name: no_op}
recognizer_registry:
  recognizers:
    - name: staff
      type: custom
      supported_languages: [en]
      supported_entity: PERSON
      deny_list: [Ann Example, Bob Sample]
    - name: titles
      type: custom
      supported_languages: [de]
      supported_entity: PERSON
      patterns: [{name: title, regex: "(?<=Frau )[A-ZÄÖÜ]\\\\w+ [A-ZÄÖÜ]\\\\w+", score: 0.9}]
"""

pytestmark = [
    pytest.mark.slow,
    # Of spaCy's and Presidio's own imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a spaCy pipeline that knows three people."""
    spacy: Any = pytest.importorskip("spacy", reason="see test_the_lock_has_presidio")
    nlp = spacy.blank("en")
    nlp.meta["name"], nlp.meta["version"] = "staff", "1.2.3"
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": name} for name in NAMES])
    folder = tmp_path_factory.mktemp("model") / "staff"
    nlp.to_disk(folder)
    return Path(folder)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Presidio configuration of rules alone, in two languages."""
    path = tmp_path_factory.mktemp("rules") / "names.yaml"
    path.write_text(RULES, encoding="utf-8")
    return path


def test_the_lock_has_presidio() -> None:
    """So these tests are not skipped where locks/cpu.txt is installed."""
    lock = Path(__file__).parents[4] / "locks" / "cpu.txt"
    assert re.search(r"^presidio-analyzer==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    import presidio_analyzer  # noqa: F401


@pytest.mark.parametrize(
    ("text", "spans", "left", "count"),
    [
        ("Ann asks", [(0, 3)], "[name] asks", 1),
        ("Ann Example asks Bob", [(0, 3), (0, 11), (17, 20)], "[name] asks [name]", 2),
        ("I am Ann \n", [(5, 9)], "I am [name] \n", 1),
        ("write to [mail] or 12", [(9, 15), (10, 14), (19, 21)], "write to [mail] or 12", 0),
        ("Ann [mail] Bob", [(0, 14)], "[name] [mail] [name]", 2),
        ("[name] asks", [(0, 6), (1, 5)], "[name] asks", 0),
    ],
)
def test_spans_become_marks_once(
    text: str, spans: list[tuple[int, int]], left: str, count: int
) -> None:
    assert replace_spans(text, spans) == (left, count)
    assert NAME not in PLACEHOLDERS.values()
    assert re.fullmatch(r"\[[a-z]+\]", NAME)


def test_a_spacy_model_of_the_users_finds_names(pipeline: Path) -> None:
    names = load_names(str(pipeline))
    assert names.redact("Ann Example here, for Zoë Muster.") == ("[name] here, for [name].", 2)
    assert names.redact("ann example of a parcel") == ("ann example of a parcel", 0)
    assert names.facts["models"] == ["en_staff 1.2.3"]
    assert names.facts["languages"] == ["en"]
    assert names.facts["by"].startswith("presidio-analyzer 2.")


def test_rules_alone_need_no_model_and_serve_several_languages(rules: Path) -> None:
    names = load_names(str(rules))
    text, count = names.redact("Ann Example schreibt an Frau Zoë Muster, 12 Tage")
    assert (text, count) == ("[name] schreibt an Frau [name], 12 Tage", 2)
    assert names.facts["models"] == []
    assert names.facts["languages"] == ["de", "en"]
    assert names.facts["config"]["name"] == "names.yaml"
    assert len(names.facts["config"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("no_op", "stanza"), "the engine 'stanza' downloads its models"),
        (("nlp_configuration", "nlp_settings"), "add nlp_configuration"),
        (("PERSON", "PARCEL"), "does not support PERSON"),
    ],
)
def test_a_configuration_that_would_find_nothing_or_fetch_something_is_refused(
    rules: Path, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    """Presidio would silently use its own configuration, or download models."""
    path = tmp_path / "names.yaml"
    path.write_text(rules.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        load_names(str(path))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_not_here_or_finds_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import spacy

    with pytest.raises(BadInput, match="install the model's package, or name a model's folder"):
        load_names("en_core_web_absent")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(BadInput, match="no component that finds entities"):
        load_names(str(tmp_path / "blank"))
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(BadInput, match=r"pip install -e '\.\[presidio\]"):
        load_names("en_core_web_sm")


def test_a_dataset_says_that_its_names_were_redacted_and_by_what(
    prepare: Prepare, records: list[Record], pipeline: Path
) -> None:
    signed = [
        (id_, f"{message} Regards from {NAMES[at % 3]}" if at % 2 else message, label)
        for at, (id_, message, label) in enumerate(records)
    ]
    made = prepare(signed, "--redact-names", pipeline, "--redact")
    assert made.dataset.redaction == "pii-2"
    told = made.record["names_redaction"]
    assert told["models"] == ["en_staff 1.2.3"]
    assert told["marked"] == made.counts["redacted"]["name"] > 0
    assert told["messages"] == sum(made.counts["splits"].values())
    for path in made.out.iterdir():
        assert not any(name in path.read_text(encoding="utf-8") for name in NAMES), path
    assert "Serving does not redact names" in " ".join(made.printed.split())
