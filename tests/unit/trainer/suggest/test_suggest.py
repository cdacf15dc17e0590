"""Suggestions from few labels, and topics of messages without labels."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer_world import call
from trainer.suggest import texts as texts_module
from trainer.suggest.order import BATCH, order, suggest
from trainer.suggest.texts import first_of, make_features, read_texts
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Suggestion, read_suggestions, write_suggestions
from worker.contract.taxonomy import Taxonomy
from worker.contract.text import message_sha256

pytestmark = pytest.mark.slow

WORDS = {
    "refund": ("refund", "money", "returned", "credit"),
    "delivery": ("parcel", "courier", "driver", "doorstep"),
    "payment": ("card", "declined", "checkout", "invoice"),
    "account": ("password", "login", "email", "locked"),
}
FILLER = ("please", "today", "again", "monday", "shop", "large", "green", "quickly")


def make_messages(per_label: int, seed: int = 1, *, few: bool = False) -> dict[str, str]:
    """Messages, each of two words of its label and some of no meaning; message -> label."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    for label, words in WORDS.items():
        while Counter(found.values())[label] < per_label:
            own, rest = draw.sample(words, 2), draw.sample(FILLER, 1 if few else 3)
            found[" ".join(draw.sample(own + rest, len(own + rest)))] = label
    return found


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """``messages.csv`` and ``taxonomy.toml``; message -> label."""
    truth = make_messages(40)
    write_csv(tmp_path / "messages.csv", [["text"], *([text] for text in truth)])
    labels = "".join(f'[[labels]]\nname = "{name}"\n' for name in WORDS)
    (tmp_path / "taxonomy.toml").write_text(f'name = "shop"\nversion = "1"\n{labels}')
    return truth


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_labels(path: Path, truth: dict[str, str], count: int) -> list[str]:
    known = random.Random(2).sample(sorted(truth), count)
    lines = [json.dumps({"id": str(at), "message": text, "label": truth[text]})
             for at, text in enumerate(known)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return known


def run(tmp_path: Path) -> tuple[Suggestion, ...]:
    out = tmp_path / "suggestions.jsonl"
    suggest(tmp_path / "messages.csv", tmp_path / "l.jsonl", tmp_path / "taxonomy.toml", out)
    return read_suggestions(out)


def test_every_message_without_a_label_gets_a_suggestion_and_most_are_right(
    tmp_path: Path, shop: dict[str, str]
) -> None:
    known = write_labels(tmp_path / "l.jsonl", shop, 40)
    found = {each.message_sha256: each for each in run(tmp_path)}
    open_ = {message_sha256(text): label for text, label in shop.items() if text not in known}
    assert found.keys() == open_.keys()
    right = sum(each.label == open_[digest] for digest, each in found.items())
    assert right / len(open_) > 0.9
    assert all(0 < each.confidence <= 1 for each in found.values())


def test_of_copies_one_is_asked_first() -> None:
    """25 uncertain messages, each five times over, and many that are certain."""
    uncertain = np.random.default_rng(3).dirichlet([5.0] * 4, size=25)
    features = np.eye(26, dtype=np.float32)
    places = np.repeat(np.arange(25), 5)
    found = order(
        np.concatenate([uncertain[places], np.full((300, 4), [0.97, 0.01, 0.01, 0.01])])[::-1],
        np.concatenate([features[places], features[[25] * 300]])[::-1],
        seed=1,
    )
    assert sorted(found) == list(range(425))
    asked = [(424 - at) // 5 for at in found[:BATCH] if at >= 300]
    assert len(asked) == len(set(asked)) > BATCH / 2


def test_the_file_names_messages_by_digest_and_has_no_text(
    tmp_path: Path, shop: dict[str, str]
) -> None:
    write_labels(tmp_path / "l.jsonl", shop, 30)
    assert run(tmp_path)
    for name in ("suggestions.jsonl", "suggestions.npz"):
        content = (tmp_path / name).read_bytes()
        assert not any(word.encode() in content for word in FILLER)


def test_features_are_made_once_for_the_same_messages(
    tmp_path: Path, shop: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.npz"
    texts = read_texts(tmp_path / "messages.csv", None)
    first = make_features(texts, None, kept)
    made: list[int] = []

    def count(messages: Sequence[str]) -> np.ndarray:
        made.append(len(messages))
        return np.ones((len(messages), 2), dtype=np.float32)

    monkeypatch.setattr(texts_module, "text_features", count)
    assert np.array_equal(make_features(texts, None, kept), first)
    assert not made
    kept.write_bytes(kept.read_bytes()[:100])  # damaged
    make_features(texts, None, kept)
    make_features(first_of(texts, 10), None, kept)
    assert made == [160, 10]


@pytest.mark.parametrize("labels", [[], ["refund"], ["refund", "refund"]])
def test_fewer_than_two_labels_give_no_suggestions(
    tmp_path: Path, shop: dict[str, str], labels: list[str]
) -> None:
    texts = sorted(shop)[: len(labels)]
    write_labels(tmp_path / "l.jsonl", dict(zip(texts, labels, strict=True)), len(labels))
    if not labels:
        (tmp_path / "l.jsonl").unlink()
    assert run(tmp_path) == ()


@pytest.mark.parametrize(
    ("label", "options", "problem"),
    [
        ("nonsense", (), "l.jsonl:1: its label is not in the taxonomy"),
        ("refund", ("--message-column", "body"), "no column 'body'"),
        ("refund", ("--out", "suggestions.csv"), "give a name that ends with .jsonl"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, shop: dict[str, str], label: str, options: tuple[str, ...], problem: str
) -> None:
    write_labels(tmp_path / "l.jsonl", {"where is my parcel?": label}, 1)
    code, _, error = call(
        *("suggest", tmp_path / "messages.csv", "--taxonomy", tmp_path / "taxonomy.toml"),
        *("--labelled", tmp_path / "l.jsonl", "--out", tmp_path / "s.jsonl", *options),
    )
    assert code == 2
    assert problem in error
    assert "parcel" not in error


def test_a_damaged_file_of_suggestions_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    write_suggestions(file, [Suggestion("suggestions/1", "a" * 64, "refund", 0.5)])
    file.write_text(file.read_text() + '{"schema": "suggestions/1"}\n')
    with pytest.raises(RecordRefused, match=r"s\.jsonl:2"):
        read_suggestions(file)


# --- topics ---


def test_planted_topics_are_found_and_the_file_holds_terms_alone(
    tmp_path: Path, shop: dict[str, str]
) -> None:
    out = tmp_path / "topics.toml"
    plain = make_messages(40, few=True)
    write_csv(tmp_path / "messages.csv", [["text"], *([text] for text in plain)])
    code, found, error = call(
        *("taxonomy", "suggest", tmp_path / "messages.csv", "--out", out, "--json"),
        *("--labels", 4),
    )
    assert code == 0, error
    taxonomy = Taxonomy.from_toml(out)
    assert taxonomy.names == tuple(each["name"] for each in found["topics"])
    assert sum(each["messages"] for each in found["topics"]) == 160
    # Each topic has the words of one label, and each label's words are in one topic.
    terms = [set(" ".join(each["terms"]).split()) for each in found["topics"]]
    said = [{label for label, words in WORDS.items() if own & set(words)} for own in terms]
    assert sorted(map(sorted, said)) == [[label] for label in sorted(WORDS)]
    assert not any(text in out.read_text() for text in plain)


def test_messages_are_shown_on_the_terminal(tmp_path: Path, shop: dict[str, str]) -> None:
    from tests.support.trainer_world import run_cli

    out = tmp_path / "topics.toml"
    done = run_cli("taxonomy", "suggest", tmp_path / "messages.csv", "--out", out, "--labels", 2)
    assert done.exit_code == 0, done.stderr
    shown = [line[4:] for line in done.stdout.splitlines() if line.startswith("  · ")]
    assert len(shown) == 6
    assert set(shown) <= shop.keys()


def test_a_taxonomy_is_never_overwritten(tmp_path: Path, shop: dict[str, str]) -> None:
    code, _, error = call(
        *("taxonomy", "suggest", tmp_path / "messages.csv"),
        *("--out", tmp_path / "taxonomy.toml"),
    )
    assert code == 2
    assert "exists, and may be your work" in error


def test_too_few_messages_are_refused(tmp_path: Path, shop: dict[str, str]) -> None:
    write_csv(tmp_path / "few.csv", [["text"], *([text] for text in sorted(shop)[:9])])
    code, _, error = call(
        *("taxonomy", "suggest", tmp_path / "few.csv", "--labels", 2, "--out", tmp_path / "x.toml")
    )
    assert code == 2
    assert "has 9 different messages, and 2 topics need 10" in error
