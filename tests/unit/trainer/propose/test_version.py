"""A new version of a dataset: each decision once, and an unchanged hold-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.propose_world import NAME_RULES, write_taught
from trainer.check.duplicates import fingerprint, holdout_fingerprints
from trainer.dataset.extra_files import (
    GROUPS,
    group_lines,
    read_label_sources,
    write_extra_files,
)
from trainer.dataset.folder import (
    SPLITS,
    Dataset,
    Example,
    count_openings,
    open_dataset,
    open_holdout,
    write_dataset,
)
from trainer.dataset.names import load_names
from trainer.dataset.near_duplicates import near_pairs, verify_disjoint
from trainer.dataset.people import has_same_pool, read_taught
from trainer.errors import BadInput
from trainer.propose.version import Message, make_version, read_outcomes
from trainer.similarity import SIMILARITY
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.redact import REDACTION
from worker.contract.text import message_sha256

Make = Callable[[int, int], list[tuple[str, str]]]


def answer(text: str, **more: Any) -> Answer:
    values = {"id": text[:8], "decision": "accept", "guideline": "4", "purpose": "check"} | more
    return Answer(message_sha256=message_sha256(text), **values)


def version(
    base: Dataset,
    out: Path,
    answers: Iterable[Answer],
    texts: Iterable[tuple[str, str | None]] = (),
    *,
    ids: Sequence[str] = (),
    names: Path | None = None,
) -> Dataset:
    """Return a version with these answers, about messages whose ids are new ones or ``ids``."""
    messages = {
        message_sha256(text): Message(ids[at] if ids else f"new-{at}", text, label)
        for at, (text, label) in enumerate(texts)
    }
    outcomes = {each.message_sha256: each for each in answers}
    return make_version(base, outcomes, messages, out, names=str(names) if names else None)


def changes(dataset: Dataset) -> dict[str, int]:
    found: dict[str, int] = dataset.record["version"]["changes"]
    return found


def holdout(dataset: Dataset) -> tuple[Example, ...]:
    return open_holdout(dataset, purpose="test", subject="test")


def held(dataset: Dataset) -> dict[str, str]:
    return {each.id: each.label for each in holdout(dataset)}


def added(dataset: Dataset) -> list[Example]:
    return [each for each in dataset.train if each.id.startswith("new-")]


def test_decisions_hold_in_training_and_the_holdout_stays(tmp_path: Path, sealed: Dataset) -> None:
    rows = sealed.train[:3]
    other = "payment" if rows[0].label != "payment" else "refund"
    out = holdout(sealed)
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
    assert read_label_sources(new)[rows[1].id].words == "person, guideline 4"
    assert changes(new)["train_dropped"] == changes(new)["holdout_decisions_left"] == 1
    assert new.record["version"]["of"] == sealed.digest


def test_the_same_decisions_make_the_same_dataset_and_are_not_counted_again(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    fresh = make_messages(8, 55)
    told = [answer(t, decision="relabel", new_label=label) for t, label in fresh]
    texts = [(text, None) for text, _ in fresh]
    first, second = (version(sealed, tmp_path / name, told, texts) for name in ("a", "b"))
    assert first.digest == second.digest
    again = version(open_dataset(tmp_path / "a"), tmp_path / "c", told, texts)
    assert changes(again).get("new_in_train", 0) == 0
    assert len(again.train) == len(first.train)


def test_chosen_messages_are_learnt_and_random_ones_may_be_held_out(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """A hold-out of messages that a model found hard would not represent service."""
    fresh = make_messages(40, 56)
    chosen, random = (
        version(sealed, tmp_path / why, [answer(text, purpose=why) for text, _ in fresh], fresh)
        for why in ("learn", "audit")
    )
    assert chosen.holdout_sha256 == sealed.holdout_sha256
    assert len(chosen.train) > len(sealed.train)
    assert len(chosen.validation) == len(sealed.validation)
    assert held(random).keys() > held(sealed).keys()
    assert len(random.validation) > len(sealed.validation)
    assert random.train == sealed.train
    for dataset in (chosen, random):
        seen = [fingerprint(e.message).shingles for e in (*dataset.train, *dataset.validation)]
        outside = [each.shingles for each in holdout_fingerprints(dataset)]
        assert not list(near_pairs(seen, outside, SIMILARITY))


def test_a_teachers_pool_stays_and_nothing_near_it_is_learnt(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """Without the messages that reviewers doubted it would not be a random part."""
    parts = {
        "train": list(sealed.train),
        "validation": list(sealed.validation),
        "holdout": list(open_holdout(sealed, purpose="test", subject="test")),
    }
    pool = [Example(f"p{at}", *row) for at, row in enumerate(make_messages(5, 60))]
    base = write_taught(tmp_path / "base", sealed.taxonomy, parts, pool)
    fresh = make_messages(40, 61)
    chosen = [pool[0].message, f"{pool[1].message}!"]
    texts: list[tuple[str, str | None]] = [(text, pool[2].label) for text in chosen]
    answers = [answer(text, purpose="learn") for text in chosen]
    answers += [answer(text, purpose="audit") for text, _ in fresh]
    new = version(base, tmp_path / "v", answers, [*texts, *fresh])
    again = version(new, tmp_path / "w", [answer(sealed.train[0].message)])
    for made in (new, again):
        taught = read_taught(made)
        assert taught is not None
        assert list(taught.pool) == pool
        assert has_same_pool(base, made)
        # The teacher was not asked about messages that came later.
        before = {each.id: each.label for each in parts["holdout"]}
        assert taught.labels == dict.fromkeys(held(made), "") | before
        assert len(taught.labels) > len(before)
    assert new.train == base.train
    assert new.record["version"]["changes"]["new_near_another_part"] >= len(chosen)


def test_of_two_near_messages_the_drawn_one_is_held_out(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """Whether a message is held out does not depend on a model's doubt about one like it."""
    fresh = make_messages(9, 57)
    drawn, chosen = ([f"{text}{mark}" for text, _ in fresh] for mark in ("", "!"))
    told = [answer(t, purpose="audit") for t in drawn] + [
        answer(t, purpose="learn") for t in chosen
    ]
    labels = [label for _, label in fresh] * 2
    new = version(sealed, tmp_path / "v", told, zip(drawn + chosen, labels, strict=True))
    assert new.train == sealed.train
    assert changes(new)["new_near_another_part"] == len(chosen)


def test_what_cannot_be_used_is_counted_or_refused(tmp_path: Path, sealed: Dataset) -> None:
    out = holdout(sealed)
    near = out[0].message + "!"
    told = [answer("gone", id="g"), answer(near, id="n", purpose="learn")]
    new = version(sealed, tmp_path / "v", told, [(near, out[0].label)])
    assert changes(new)["decisions_without_text"] == 1
    with pytest.raises(BadInput, match="taxonomy does not have: sports"):
        version(sealed, tmp_path / "w", [answer("x", decision="relabel", new_label="sports")])
    assert not (tmp_path / "w").exists()


def test_the_latest_decision_counts_and_a_tie_is_no_decision(tmp_path: Path) -> None:
    early = answer("x", id="x", decided_at="2026-01-01T00:00:00Z")
    late = answer("x", id="x", decision="drop", decided_at="2026-01-02T00:00:00Z")
    for at, pair in enumerate(((early, late), (late, early))):
        save_answers(tmp_path / f"{at}.csv", pair)
        assert read_outcomes([tmp_path / f"{at}.csv"])[late.message_sha256] == late
    save_answers(tmp_path / "tie.csv", [answer("x", id="x"), late])
    with pytest.raises(BadInput, match="two different decisions"):
        read_outcomes([tmp_path / "tie.csv"])


TAIL = (
    "\nOn 3 Jun 2024 at 10:12, Ann wrote:\n> which parcel do you mean and when was it sent\n"
    "> and to which address\n\nBest regards,\nBob of the long long name\n+44 20 7946 0000"
)


def as_prepared(sealed: Dataset, out: Path, **facts: Any) -> Dataset:
    """Return the sealed dataset with another history."""
    held_out = holdout(sealed)
    splits = {"train": sealed.train, "validation": sealed.validation, "holdout": held_out}
    return write_dataset(out, name="n", taxonomy=sealed.taxonomy, splits=splits, **facts)


@pytest.mark.parametrize("stripped", [True, False])
def test_a_live_mail_that_is_held_out_is_never_learnt(
    tmp_path: Path, sealed: Dataset, stripped: bool
) -> None:
    """It comes from the topic with its quotation and signature; the dataset has it without them, or
    with others."""
    settings = {"strip_quotes": stripped, "strip_signatures": stripped}
    base = as_prepared(sealed, tmp_path / "base", settings=settings)
    out = holdout(base)
    mails = [(f"{each.message}{TAIL}", each.label) for each in out]
    told = [answer(mail, id=f"live-{at}", purpose="learn") for at, (mail, _) in enumerate(mails)]
    new = version(base, tmp_path / "v", told, mails)
    left = "holdout_decisions_left" if stripped else "new_near_another_part"
    assert changes(new) == {left: len(out)}
    assert verify_disjoint(new, base, out).shared == verify_disjoint(base, base, out).shared


def test_a_new_message_is_cleaned_as_the_dataset_was(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    facts = {"settings": {"strip_quotes": True, "strip_signatures": True}, "redaction": REDACTION}
    base = as_prepared(sealed, tmp_path / "base", **facts)
    fresh = [
        (f"{text} Write to bob@example.org{TAIL}", label) for text, label in make_messages(9, 71)
    ]
    new = version(base, tmp_path / "v", [answer(text) for text, _ in fresh], fresh)
    assert len(added(new)) > 4
    assert all(each.message.endswith("Write to [mail]") for each in added(new))


def test_an_id_that_is_held_out_is_never_learnt_and_one_learnt_never_held_out(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    fresh = make_messages(9, 77)
    texts = fresh[:9]
    told = [answer(text) for text, _ in texts]
    new = version(sealed, tmp_path / "v", told, texts, ids=[each.id for each in holdout(sealed)])
    assert changes(new) == {"new_near_another_part": len(texts)}
    drawn = [answer(text, purpose="audit") for text, _ in texts]
    new = version(sealed, tmp_path / "w", drawn, texts, ids=[each.id for each in sealed.train])
    assert changes(new) == {"new_in_train": len(texts)}
    assert new.holdout_sha256 == sealed.holdout_sha256


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_names_in_new_messages_are_redacted_as_the_manifest_says(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    pytest.importorskip("presidio_analyzer", reason="see test_the_lock_has_presidio")
    model, other = tmp_path / "names.yaml", tmp_path / "other.yaml"
    model.write_text(NAME_RULES, encoding="utf-8")
    other.write_text(NAME_RULES.replace("Bob Sample", "Bob Other"), encoding="utf-8")
    claim = {**load_names(str(model)).facts, "messages": 7, "marked": 3}
    base = as_prepared(sealed, tmp_path / "base", names_redaction=claim)
    fresh = [(f"{text} Yours, Ann Example", label) for text, label in make_messages(9, 73)]
    told = [answer(text) for text, _ in fresh]
    before = count_openings(base)
    for wrong, said in ((None, "--redact-names"), (other, "other.yaml")):
        with pytest.raises(BadInput, match=said):
            version(base, tmp_path / "v", told, fresh, names=wrong)
    assert count_openings(base) == before
    new = version(base, tmp_path / "v", told, fresh, names=model)
    learnt = [each for each in (*new.train, *new.validation) if each.id.startswith("new-")]
    assert len(learnt) > 4
    for path in new.directory.iterdir():
        assert "Ann Example" not in path.read_text(encoding="utf-8"), path
    messages = len((*new.train, *new.validation, *holdout(new)))
    made = new.record["names_redaction"]
    assert made == {**claim, "messages": messages, "marked": len(learnt)}
    with pytest.raises(BadInput, match="leave the option out"):
        version(sealed, tmp_path / "w", [], names=model)


def test_a_hold_out_that_grew_keeps_its_openings(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    """Otherwise each published proposal would start the 5 % of a whole sequence again."""
    for at in range(3):
        open_holdout(sealed, purpose="evaluate", subject=f"adapter {at}")
    fresh = make_messages(30, 78)
    told = [answer(text, purpose="audit") for text, _ in fresh]
    new = version(sealed, tmp_path / "v", told, fresh)
    assert changes(new)["new_in_holdout"] > 2
    assert count_openings(new) == count_openings(sealed) > 3
    again = version(new, tmp_path / "w", [])
    assert count_openings(again) == count_openings(new)


def test_a_dataset_of_threads_gets_no_version(tmp_path: Path, sealed: Dataset) -> None:
    """Also one split by time: a new message may belong to a held-out thread."""
    groups, rows = group_lines(dict.fromkeys(SPLITS, ()), {})
    base = as_prepared(
        sealed, tmp_path / "base", split={"by": "time"},
        extra_files=write_extra_files(tmp_path, [(GROUPS, groups, rows)]),
    )  # fmt: skip
    (tmp_path / GROUPS).rename(base.directory / GROUPS)
    with pytest.raises(BadInput, match="prepare --decisions"):
        version(base, tmp_path / "v", [])


def test_a_reworded_live_mail_that_is_held_out_is_never_learnt(
    tmp_path: Path, sealed: Dataset
) -> None:
    """Under another quotation and signature it shares few shingles with the held-out mail."""
    settings = {"strip_quotes": False, "strip_signatures": False}
    base = as_prepared(sealed, tmp_path / "base", settings=settings)
    out = holdout(base)
    mails = [(f"{each.message} please{TAIL}", each.label) for each in out]
    told = [answer(mail, id=f"live-{at}", purpose="learn") for at, (mail, _) in enumerate(mails)]
    assert changes(version(base, tmp_path / "v", told, mails)) == {
        "new_near_another_part": len(out)
    }


def test_of_two_mails_that_are_one_message_the_later_decision_counts(
    tmp_path: Path, sealed: Dataset, make_messages: Make
) -> None:
    base = as_prepared(sealed, tmp_path / "base", settings={"strip_signatures": True})
    [(text, label), *_] = make_messages(1, 76)
    other = "payment" if label != "payment" else "refund"
    early, late = f"{text}\n\nBest regards,\nAnn", f"{text}\n\nCheers,\nBob"
    for at, (first, second) in enumerate(((early, late), (late, early))):
        told = [
            answer(first, decision="relabel", new_label=label, decided_at="2026-01-01T00:00:00Z"),
            answer(second, decision="relabel", new_label=other, decided_at="2026-01-02T00:00:00Z"),
        ]
        new = version(base, tmp_path / f"v{at}", told, [(first, None), (second, None)])
        [learnt] = added(new)
        assert (learnt.message, learnt.label) == (text, other)
