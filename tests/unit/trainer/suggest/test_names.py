"""Topics that a teacher names: the budget holds, and no customer's words reach the taxonomy."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulated_teacher import Faults, SimulatedTeacher
from tests.support.trainer_world import call, run_cli
from tests.unit.trainer.suggest.test_suggest import WORDS, make_messages
from trainer.suggest.names import read_name, repeats
from trainer.teacher.ledger import Answer
from worker.contract.taxonomy import Taxonomy

SENT = [
    "Hi, my parcel from Wanda never came to 5 Mill Lane, mail w@example.com",
    "帮我取消昨天的订单谢谢",
    "Cancel it please!",
]
NAMES = frozenset({"wanda"})


@pytest.mark.parametrize(
    "text",
    [
        "a parcel that never came to 5",
        "parcels that never came to 5 Mill Lane",
        "never came to five, my parcel from Wanda",
        "my parcel from the shop, mail w@example.com",
        "Cases where PARCEL, Wanda's, is late",
        "a [mail] address",
        "messages such as: cancel it, please",
        "关于取消昨天的订单谢谢",
    ],
)
def test_a_customers_words_are_noticed(text: str) -> None:
    assert repeats(text, SENT, NAMES)


def test_five_words_in_a_row_are_a_quotation_and_four_are_not() -> None:
    sent = ["could you send the blue sofa to my sister"]
    assert repeats("customers who send the blue sofa to others", sent, frozenset())
    assert not repeats("customers who send the blue sofa elsewhere", sent, frozenset())


def test_words_in_common_are_no_quotation() -> None:
    assert not repeats("parcel_missing Parcels that came late or never", SENT, NAMES)
    assert not repeats("wanda is a customer", ["no name here"], NAMES)
    assert not repeats("取消订单的请求", SENT, NAMES)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"name": "late_parcel", "description": "A  delay."}', ["late_parcel", "A delay."]),
        ('{"name": " Late parcel ", "description": "A delay."}', ["late_parcel", "A delay."]),
        ('{"description": "Zu groß.", "name": "größe"}', ["größe", "Zu groß."]),
        ('{"name": "none", "description": "A delay."}', None),
        ('{"name": "!!", "description": "A delay."}', None),
        ('{"name": "late", "description": ""}', None),
        ('{"name": "late"}', None),
        ('{"name": "late", "description": "A delay.", "more": 1}', None),
        ('{"name": ["late"], "description": "A delay."}', None),
        ('{"name": "%s", "description": "A delay."}' % ("x" * 41), None),
        ('{"name": "late", "description": "%s"}' % ("x" * 201), None),
        ('{"name": "late", "description": "my parcel from Wanda never"}', None),
        ('["late", "A delay."]', None),
        ("late", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_an_answer_is_a_name_and_a_sentence_or_invented(
    content: str | None, found: list[str] | None
) -> None:
    wanted = Answer("invented")
    if found is not None:
        wanted = Answer("label", json.dumps(found, ensure_ascii=False))
    assert read_name(content, SENT, NAMES) == wanted


# --- the command

Serve = Callable[..., SimulatedTeacher]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(name: Callable[[dict[str, Any]], str], **fields: Any) -> SimulatedTeacher:
            found = SimulatedTeacher(str, 150_000, 600_000, name=name, **fields)
            return stack.enter_context(found.running())

        yield start


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, str]:
    """``messages.csv``, with four topics that are easy to find; message -> label."""
    found = make_messages(40, few=True)
    with (tmp_path / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[f"{text} pays ann@example.com"] for text in found]
        csv.writer(file).writerows([["text"], *rows])
    return found


def command(tmp_path: Path, teacher: SimulatedTeacher, *more: object) -> list[object]:
    return [
        *("taxonomy", "suggest", tmp_path / "messages.csv", "--out", tmp_path / "t.toml"),
        *("--labels", 4, "--teacher", teacher.url, "--model", "simulated", "--yes"),
        *("--price-input", "0.15", "--price-output", "0.60", "--budget", "1", *more),
    ]


def label_of(asked: dict[str, Any]) -> str:
    """The label whose words are in the messages that were sent."""
    text = " ".join(asked["messages"])
    return max(WORDS, key=lambda label: sum(text.count(word) for word in WORDS[label]))


def about(label: str) -> str:
    return json.dumps({"name": f"about_{label}", "description": f"All that concerns a {label}."})


@pytest.mark.slow
def test_topics_get_the_teachers_names_and_what_leaves_is_masked(
    tmp_path: Path, plain: dict[str, str], serve: Serve
) -> None:
    teacher = serve(lambda asked: about(label_of(asked)))
    code, result, error = call(*command(tmp_path, teacher, "--json"))
    assert code == 0, error
    taxonomy = Taxonomy.from_toml(tmp_path / "t.toml")
    assert set(taxonomy.names) == {f"about_{label}" for label in WORDS}
    assert all(each.description.startswith("All that concerns") for each in taxonomy.labels)
    assert "described by simulated" in (tmp_path / "t.toml").read_text()
    assert result["kept_by_terms"] == {}
    assert (teacher.served, result["requests"]) == (4, 4)
    assert float(result["spent"][1:]) * 10**12 >= teacher.billed > 0
    # Said before it was sent.
    assert "What leaves: of 4 topics the terms and the 3 most typical messages" in error
    assert "Mail addresses" in error
    assert "Cost: at most $1.0000 in all" in error
    assert not any(text in error for text in plain)
    sent = json.dumps(teacher.bodies)
    assert "ann@example.com" not in sent
    for body in teacher.bodies:
        asked = json.loads(body["messages"][1]["content"])
        assert len(asked["messages"]) == 3
        assert len(asked["other_topics"]) == 3


@pytest.mark.slow
def test_no_message_reaches_the_file_and_what_cannot_be_used_is_listed(
    tmp_path: Path, plain: dict[str, str], serve: Serve
) -> None:
    """A model that quotes, one name for two topics, and an answer that is none."""

    def answer(asked: dict[str, Any]) -> str:
        label = label_of(asked)
        if label == "refund":
            return json.dumps({"name": "refund", "description": asked["messages"][0][:90]})
        if label == "account":
            return "I cannot name this."
        return json.dumps({"name": "order", "description": "Something about an order."})

    teacher = serve(answer)
    done = run_cli(*command(tmp_path, teacher))
    assert done.exit_code == 0, done.stderr
    taxonomy = Taxonomy.from_toml(tmp_path / "t.toml")
    written = (tmp_path / "t.toml").read_text()
    assert not any(text in written for text in plain)
    assert [each.description for each in taxonomy.labels].count("Something about an order.") == 1
    typical = [each for each in taxonomy.labels if each.description.startswith("Typical words: ")]
    assert len(typical) == 3
    for each in typical:
        assert f"{each.name}: named by its terms: " in done.stdout
    assert done.stdout.count("its answer cannot be used, or repeats a message") == 2
    assert done.stdout.count("another topic is named order") == 1


@pytest.mark.slow
def test_the_budget_holds_and_the_same_command_goes_on(
    tmp_path: Path, plain: dict[str, str], serve: Serve
) -> None:
    faults = Faults(first=["none", "dropped_after"])
    teacher = serve(lambda asked: about(label_of(asked)), faults=faults)
    tight = command(tmp_path, teacher, "--concurrency", 1, "--json")
    tight[tight.index("--budget") + 1] = "0.0007"  # an answer, and the bound of the dropped one
    code, _, error = call(*tight)
    assert code == 3
    assert "the budget has no room for another request; nothing was written" in error
    assert not (tmp_path / "t.toml").exists()
    assert teacher.billed <= 0.0007 * 10**12
    assert teacher.served == 2
    code, result, error = call(*command(tmp_path, teacher, "--json"))
    assert code == 0, error
    assert "each asked about once (" in error
    assert len(result["topics"]) == 4
    assert teacher.served == 4 + 1  # the answer that was paid for was kept
    assert result["kept_by_terms"] == {}


@pytest.mark.slow
def test_nothing_is_sent_without_a_yes_or_for_an_estimate(
    tmp_path: Path, plain: dict[str, str], serve: Serve
) -> None:
    teacher = serve(lambda asked: about(label_of(asked)))
    words = command(tmp_path, teacher)
    code, facts, error = call(*words, "--estimate", "--json")
    assert (code, facts["open"], facts["budget"]) == (0, 4, "$1.0000"), error
    words.remove("--yes")
    done = run_cli(*words)
    assert done.exit_code == 2
    assert "nothing was sent" in done.stderr
    assert teacher.served == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["messages.csv"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--model", "m"), "--model belongs to --teacher"),
        (("--estimate",), "--estimate belongs to --teacher"),
        (("--teacher", "http://127.0.0.1:9/v1"), "--teacher needs --model"),
        (("--teacher", "127.0.0.1:9", "--model", "m"), "--teacher: expected an address"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    tmp_path: Path, plain: dict[str, str], words: tuple[str, ...], problem: str
) -> None:
    code, _, error = call("taxonomy", "suggest", tmp_path / "messages.csv",
                          "--out", tmp_path / "t.toml", *words)  # fmt: skip
    assert code == 2
    assert problem in error
