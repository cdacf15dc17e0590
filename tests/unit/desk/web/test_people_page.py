"""The owner's page of users: adding one, resetting a password, pace and agreement."""

from __future__ import annotations

import re

import pytest

from desk.auth.passwords import is_password
from desk.service import people, reviewing
from desk.store.types import Person
from desk.web.visit import WebOptions
from tests.support.desk_browser import NewBrowser
from tests.support.desk_world import DeskWorld

pytestmark = pytest.mark.slow

PASSWORD = "a long enough password"


def test_an_owner_adds_a_user_who_can_sign_in(world: DeskWorld, browser: NewBrowser) -> None:
    ada = browser("ada", "owner")
    added = ada.post(
        "/people", {"action": "add", "name": "bo", "role": "adjudicator", "password": PASSWORD}
    )
    assert (added.status_code, added.headers["location"]) == (303, "/people")
    assert is_password(people.password_hash(world.desk, "bo"), PASSWORD)
    page = ada.get("/people").text
    assert "<bdi>bo</bdi>" in page
    assert PASSWORD not in page
    assert PASSWORD not in ada.get("/log").text
    entry = world.log()[0]
    assert ada.person is not None
    assert (entry["action"], entry["pseudonym"]) == ("person.added", ada.person.pseudonym)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"name": "bo", "password": "short"}, "12 to 256 characters"),
        ({"name": "ada", "password": PASSWORD}, "there is a user ada already"),
        ({"name": " bo", "password": PASSWORD}, "no blanks around it"),
        ({"name": "ad\u200ba", "password": PASSWORD}, "no invisible characters"),
        ({"name": "Ada", "password": PASSWORD}, "which looks the same"),
        ({"name": "\uff41da", "password": PASSWORD}, "which looks the same"),
        ({"name": "bo", "password": PASSWORD, "role": "king"}, "does not know"),
    ],
)
def test_a_user_who_could_not_sign_in_is_refused(
    browser: NewBrowser, form: dict[str, str], says: str
) -> None:
    ada = browser("ada", "owner")
    sent = ada.post("/people", {"action": "add", "role": "reviewer", **form})
    assert sent.status_code == 409
    assert says in sent.text
    assert ada.get("/people").text.count("<bdi>") == 2  # in the header and in the table


def test_an_account_that_is_opened_again_has_no_old_session(browser: NewBrowser) -> None:
    ada, bo = browser("ada", "owner"), browser("bo")
    assert bo.person is not None
    assert bo.get("/my-day").status_code == 200
    for action in ("close", "open"):
        assert ada.post("/people", {"action": action, "person": bo.person.id}).status_code == 303
        assert bo.get("/my-day").status_code != 200


def test_a_reset_password_signs_the_user_out(world: DeskWorld, browser: NewBrowser) -> None:
    ada, bo = browser("ada", "owner"), browser("bo")
    assert bo.person is not None
    reset = {"action": "password", "person": bo.person.id, "password": PASSWORD}
    assert bo.get("/").status_code == 200
    assert ada.post("/people", reset).status_code == 303
    assert bo.get("/").status_code == 303
    assert is_password(people.password_hash(world.desk, "bo"), PASSWORD)
    assert ada.post("/people", {**reset, "person": 99}).status_code == 409


def test_there_are_no_passwords_where_users_sign_in_elsewhere(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """A password that nobody can sign in with would mislead."""
    visitor = browser(options=WebOptions())
    page = visitor.get("/people").text
    assert 'type="password"' not in page
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    form = {"csrf": csrf[1], "action": "add", "name": "bo", "role": "owner", "password": PASSWORD}
    assert visitor.client.post("/people", data=form).status_code == 409
    assert len(people.everybody(world.desk, None)) == 1


def test_pace_and_agreement_of_each_reviewer(world: DeskWorld, browser: NewBrowser) -> None:
    """Of ann, bob and cy with known decisions; what was undone or is old does not count."""
    ann, bob, cy = (world.person(name) for name in ("ann", "bob", "cy"))
    eve = world.person("eve", "adjudicator")

    def decide(person: Person, item_id: int, label: str | None, seconds: float) -> None:
        world.decide(person, label, item_id, seconds=seconds)

    decide(cy, world.add().id, "refund", 5.0)
    world.clock.move(29 * 86_400)
    for label, other in (("refund", "refund"), ("refund", "payment"), (None, None)):
        item = world.add(opinions_wanted=2)
        decide(ann, item.id, label, 4.0)
        decide(bob, item.id, other, 10.0)
        if label != other:
            reviewing.next_dispute(world.desk, eve)
            reviewing.decide(
                world.desk,
                eve,
                item.id,
                reviewing.Said(world.request(), "label", "refund"),
                final=True,
            )
    decide(ann, world.add().id, "refund", 60.0)
    decide(bob, world.add().id, "refund", 60.0)
    reviewing.undo(world.desk, bob)
    found = people.work(world.desk, browser("ada", "owner").person, 28)  # type: ignore[arg-type]
    assert {
        name: (done.decided, done.median_s, done.doubly, done.agreed)
        for name, person in (("ann", ann), ("bob", bob), ("eve", eve))
        if (done := found[person.id])
    } == {"ann": (4, 4.0, 3, 2), "bob": (3, 10.0, 3, 2), "eve": (1, None, 0, 0)}
    assert cy.id not in found
    page = browser("ada", "owner").get("/people").text
    row = re.search(r"<strong><bdi>Ann</bdi>.*?</dl>", page, re.DOTALL)
    assert row is not None
    assert re.findall("<dd>([^<]*)</dd>", row[0]) == ["4", "4 s", "67 % of 3"]


def test_an_owner_assigns_a_share_of_a_queue(world: DeskWorld, browser: NewBrowser) -> None:
    """The reviewer decides that first, and may decide the rest; the log has who assigned it."""
    for label in ("refund", "delivery") * 4:
        world.add(label=label)
    ada, bo = browser("ada", "owner"), browser("bo")
    assert bo.person is not None
    given, assigned = {"action": "assign", "person": bo.person.id}, "label=refund&share=2%2F2"
    ada.post("/people", {**given, "label": "refund", "reason": "", "share": "2/2"})
    assert "Queue: refund, part 2 of 2" in ada.get("/people").text
    assert "Assigned to you: refund, part 2 of 2." in bo.get("/").text
    began = bo.get("/review")
    assert (began.status_code, began.headers["location"]) == (303, f"/review?{assigned}")
    assert bo.get("/review?order=oldest").status_code == 200
    entry = world.log()[0]
    assert (entry["action"], entry["detail"]["assigned"]) == ("person.changed", assigned)
    ada.post("/people", {**given, "label": "", "reason": "", "share": ""})
    assert "Assigned to you" not in bo.get("/").text
    assert bo.get("/review").status_code == 200
