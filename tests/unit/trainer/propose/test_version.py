"""A new version of a dataset: what people decided, once each, and a hold-out that stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.check.duplicates import fingerprint, holdout_fingerprints
from trainer.dataset.folder import Dataset, open_dataset, open_holdout
from trainer.dataset.label_sources import read_label_sources
from trainer.dataset.near_duplicates import near_pairs
from trainer.errors import BadInput
from trainer.propose.messages import Message, read_outcomes
from trainer.propose.version import make_version
from trainer.similarity import SIMILARITY
from worker.contract.circle import Answer, save_answers
from worker.contract.text import message_sha256

Make = Callable[[int, int], list[tuple[str, str]]]


def answer(text: str, **more: Any) -> Answer:
    values = {"id": text[:8], "decision": "accept", "guideline": "4", "purpose": "check"} | more
    return Answer(message_sha256=message_sha256(text), **values)


def version(
    base: Dataset,
    out: Path,
    answers: list[Answer],
    texts: list[tuple[str, str | None]] = [],  # noqa: B006
) -> Dataset:
    messages = {
        message_sha256(text): Message(f"new-{at}", text, label)
        for at, (text, label) in enumerate(texts)
    }
    return make_version(base, {a.message_sha256: a for a in answers}, messages, out)


def held(dataset: Dataset) -> dict[str, str]:
    return {e.id: e.label for e in open_holdout(dataset, purpose="test", subject="test")}


def test_decisions_hold_in_training_and_the_holdout_stays(tmp_path: Path, sealed: Dataset) -> None:
    """Relabelled, confirmed, dropped; what a model doubted in the hold-out changes nothing there,
    what an audit found does."""
    rows = sealed.train[:3]
    other = "payment" if rows[0].label != "payment" else "refund"
    out = open_holdout(sealed, purpose="test", subject="test")
    new = version(
        sealed,
        tmp_path / "v",
        [
            answer(rows[0].message, decision="relabel", new_label=other),
            answer(rows[1].message),
            answer(rows[2].message, decision="drop"),
            answer(out[0].message, decision="relabel", new_label=other),
            answer(out[1].message, decision="relabel", new_label=other, purpose="audit"),
        ],
    )
    labels = {example.id: example.label for example in new.train}
    assert labels[rows[0].id] == other
    assert rows[2].id not in labels
    assert len(labels) == len(sealed.train) - 1
    before, after = held(sealed), held(new)
    assert before.keys() == after.keys()
    assert after == before | {out[1].id: other}
    assert read_label_sources(new.directory)[rows[1].id].words == "person, guideline 4"
    changes = new.record["version"]["changes"]
    assert changes["train_dropped"] == changes["holdout_decisions_left"] == 1
    assert new.record["version"]["of"] == sealed.digest


def test_the_same_decisions_make_the_same_dataset_and_are_not_counted_again(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """Begun again it is the same to the digest; made once more of its own result, nothing is
    new."""
    fresh = make_messages(8, 55)
    told = [answer(t, decision="relabel", new_label=label) for t, label in fresh]
    texts: list[tuple[str, str | None]] = [(text, None) for text, _ in fresh]
    first, second = (version(sealed, tmp_path / name, told, texts) for name in ("a", "b"))
    assert first.digest == second.digest
    again = version(open_dataset(tmp_path / "a"), tmp_path / "c", told, texts)
    assert again.record["version"]["changes"].get("new_in_train", 0) == 0
    assert len(again.train) == len(first.train)


def test_chosen_messages_are_learnt_and_random_ones_may_be_held_out(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """A hold-out of what a model found hard would measure nothing that serving meets."""
    fresh = make_messages(40, 56)
    texts: list[tuple[str, str | None]] = [(text, label) for text, label in fresh]
    chosen = version(
        sealed, tmp_path / "chosen", [answer(t, purpose="learn") for t, _ in fresh], texts
    )
    random = version(
        sealed, tmp_path / "random", [answer(t, purpose="audit") for t, _ in fresh], texts
    )
    assert chosen.holdout_sha256 == sealed.holdout_sha256
    assert len(chosen.train) > len(sealed.train)
    assert len(chosen.validation) == len(sealed.validation)
    assert held(random).keys() > held(sealed).keys()
    assert len(random.validation) > len(sealed.validation)
    for dataset in (chosen, random):
        seen = [fingerprint(e.key).shingles for e in (*dataset.train, *dataset.validation)]
        outside = [each.shingles for each in holdout_fingerprints(dataset)]
        assert not list(near_pairs(seen, outside, SIMILARITY))


def test_what_cannot_be_used_is_counted_or_refused(tmp_path: Path, sealed: Dataset) -> None:
    """A text that is gone is no error and is told; a label that is not there is one."""
    out = open_holdout(sealed, purpose="test", subject="test")
    near = out[0].message + "!"
    told = [answer("gone", id="g"), answer(near, id="n", purpose="learn")]
    changes = version(sealed, tmp_path / "v", told, [(near, out[0].label)]).record["version"]
    assert changes["changes"]["decisions_without_text"] == 1
    with pytest.raises(BadInput, match="taxonomy does not have: sports"):
        version(sealed, tmp_path / "w", [answer("x", decision="relabel", new_label="sports")])
    assert not (tmp_path / "w").exists()


def test_the_latest_decision_counts_and_a_tie_is_no_decision(tmp_path: Path) -> None:
    """Two people's outcomes about one message are ordered by their times, and never guessed."""
    early = answer("x", id="x", decided_at="2026-01-01T00:00:00Z")
    late = answer("x", id="x", decision="drop", decided_at="2026-01-02T00:00:00Z")
    for at, pair in enumerate(((early, late), (late, early))):
        save_answers(tmp_path / f"{at}.csv", pair)
        assert read_outcomes([tmp_path / f"{at}.csv"])[late.message_sha256] == late
    save_answers(tmp_path / "tie.csv", [answer("x", id="x"), late])
    with pytest.raises(BadInput, match="two ways"):
        read_outcomes([tmp_path / "tie.csv"])
