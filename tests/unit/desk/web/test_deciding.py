"""The deciding page: as a plain form, and in the parts that its script asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from desk.core.keys import keyed_labels, wrong_keys
from desk.service import reviewing
from desk.store.database import Database
from tests.support.desk_browser import Browser, NewBrowser, field, open_browser
from tests.support.desk_world import TAXONOMY, DeskWorld
from worker.contract.taxonomy import Label, Taxonomy


def press(visitor: Browser, page: str, action: str, **more: str) -> str:
    """Press a button of the form on a page; return what comes, redirects followed."""
    names = (
        "csrf",
        "item",
        "request",
        *re.findall(r'name="(reason|label|origin|order|below|q|done)" value', page),
    )
    values = {name: field(page, name) for name in names}
    sent = visitor.client.post("/review", data={**values, "action": action, **more})
    if sent.status_code == 303:
        return str(visitor.open(sent.headers["location"]).text)
    assert sent.status_code in {200, 204, 409}, sent.text
    return str(sent.text)


def test_a_day_without_a_script(world: DeskWorld, browser: NewBrowser) -> None:
    """Decide, find none, flag: each button leads to the next message, then there is none. The page
    says which queue it is, how far one is, and how much is left."""
    added = [world.add(f"Message number {n}") for n in range(3)]
    ada = browser("ada")
    page = ada.open("/review").text
    for n, action in enumerate(("label:refund", "none", "flag")):
        assert f"Message number {n}" in page
        assert where(page) == f"Everything, oldest first message {n + 1} {2 - n} left"
        world.clock.move(1)
        page = press(ada, page, action, note="why" if action == "flag" else "")
    assert "Nothing is left for you here" in page
    states = [(world.item(each.id).state, world.item(each.id).outcome_label) for each in added]
    assert states == [("decided", "refund"), ("decided", None), ("dispute", None)]
    day = ada.get("/my-day").text
    assert re.search(r"<dt>decided</dt><dd><strong>2</strong>", day)


def test_undo_brings_the_message_back(world: DeskWorld, browser: NewBrowser) -> None:
    """With the answer that was taken back, and its note; also from the page on which nothing is
    left."""
    item = world.add("The only one")
    ada = browser("ada")
    page = press(ada, ada.open("/review").text, "label:refund", note="as on Monday")
    assert "Nothing is left for you here" in page
    by_script = press(ada, page, "undo", part="1")
    assert "as on Monday</textarea>" in by_script
    for again in (by_script, ada.open(f"/review?item={item.id}&answer=label:refund").text):
        assert "The only one" in again
        assert re.search(r'value="label:refund" class=" earlier"', again)
        assert again.count("your answer before") == 1
    assert world.item(item.id).state == "open"
    assert "<strong>1</strong><small>and decided again" in ada.get("/my-day").text


def reopen(visitor: Browser, path: str) -> str:
    """Press the one "Reopen" of a page; return where it leads."""
    page = visitor.get(path).text
    assert page.count(">Reopen</button>") == 1
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    sent = visitor.client.post("/reopen", data=values)
    assert sent.status_code == 303, sent.text
    return str(sent.headers["location"])


def test_a_decided_message_is_reopened_from_search_and_my_day(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Their own comes back on screen; of others' only an adjudicator sees the button, and settles
    it. An audit item goes to an adjudicator, and the page says so."""
    item = world.add("A violet kettle")
    ada, bob, eve = browser("ada"), browser("bob"), browser("eve", "adjudicator")
    press(ada, ada.open("/review").text, "label:refund")
    for path in ("/my-day", "/search?q=violet"):
        back = ada.get(reopen(ada, path)).text
        assert "A violet kettle" in back
        press(ada, back, "label:payment")
    assert world.item(item.id).outcome_label == "payment"
    assert ">Reopen</button>" not in bob.get("/search?q=violet").text
    settling = reopen(eve, "/search?q=violet")
    assert settling.startswith("/adjudicate")
    page = eve.get(settling).text
    assert "A violet kettle" in page
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    eve.client.post("/adjudicate", data={**values, "action": "label:other"})
    assert world.item(item.id).outcome_label == "other"
    assert ">Reopen</button>" not in ada.get("/my-day").text
    world.add("A green lamp", origin="audit", sample_share=0.02)
    press(bob, bob.open("/review").text, "label:refund")
    assert "An adjudicator decides" in bob.get(reopen(bob, "/my-day")).text


def test_the_machines_word_is_shown_and_in_the_sample_it_is_not(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Nowhere on the page of a blind item: not by a mark, an order, or a neighbour."""
    done = world.add("Where is my parcel number 5?")
    world.add("Where is my parcel number 7?")
    ada = browser("ada")
    press(ada, ada.open("/review").text, "label:payment")
    seen = ada.open("/review").text
    assert re.search(r'value="label:delivery" class="machine"[^>]* data-enter ', seen)
    assert "40 %" in seen
    assert "decided before" in seen
    assert "low confidence" in seen
    press(ada, seen, "label:payment")
    assert world.item(done.id).outcome_label == "payment"
    world.add("Where is my parcel number 9?", origin="audit", sample_share=0.02)
    blind = ada.open("/review").text
    assert "number 9" in blind
    words = ('class="machine"', "data-enter", "<meter", "decided before", "low confidence", "40 %")
    for word in words:
        assert word not in blind


def where(page: str) -> str:
    """What stands above a message."""
    found = re.search(r'<p class="where">(.*?)</p>', page)
    assert found is not None
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


def test_what_was_asked_for_survives_the_sign_in(browser: NewBrowser) -> None:
    path = "/review?batch=3&order=doubtful"
    sent = browser().get(path).headers["location"]
    assert parse_qs(urlsplit(sent).query)["next"] == [path]


def test_a_pause_loses_no_decision(world: DeskWorld, browser: NewBrowser) -> None:
    """After the time for which a message is held, as long as nobody has taken it; the same after
    signing out and in again."""
    world.add("The first")
    world.add("The second")
    ada, bo = browser("ada"), browser("bo")
    first = ada.open("/review").text
    world.clock.move(world.policy.claim_ms / 1000 + 1)
    assert "The second" in press(ada, first, "label:refund", note="after lunch")
    second = ada.open("/review").text
    ada.post("/sign-out", {})
    again = browser("ada")
    kept = {name: field(second, name) for name in ("item", "request")}
    assert again.open(f"/review?item={kept['item']}").status_code == 200
    assert again.post("/review", {**kept, "action": "none"}).status_code == 303
    world.add("The third")
    third = again.open("/review").text
    world.clock.move(world.policy.claim_ms / 1000 + 1)
    assert "The third" in bo.open("/review").text
    lost = press(again, third, "label:refund", part="1")
    assert "another reviewer has this message now" in lost
    assert press(bo, bo.open("/review").text, "label:payment")
    late = press(again, third, "label:refund", part="1")
    assert late == "somebody else has decided this message meanwhile"


def test_a_label_has_one_form_everywhere(database: Database) -> None:
    """Without underscores, wherever a page shows it; values and addresses have the real name."""
    shop = Taxonomy("shop", "1", "", (Label("order_tracking", "Where."), Label("not_ours", "No.")))
    world = DeskWorld(database, taxonomy=shop)
    scores = {"order_tracking": 0.6, "not_ours": 0.4}
    for n in range(6):
        audited = {"origin": "audit", "sample_share": 0.5} if n > 2 else {}
        text = f"Where is my order {n}? It should have come on Tuesday, and nothing is here."
        world.add(text, label="order_tracking", scores=scores, **audited)
    ada = open_browser(world, "ada", "owner")
    page = ada.open("/review").text
    for action in ("label:order_tracking", "label:not_ours", "label:not_ours", "label:not_ours"):
        page = press(ada, page, action)
    paths = ("/", "/review", "/review?label=order_tracking", "/search?q=order", "/clusters")
    for path in (*paths, "/my-day", "/accuracy", "/guidelines"):
        page = ada.get(path).text
        shown = re.sub(r"<[^>]+>", " ", page)
        assert not re.search("order_tracking|not_ours", shown), path
    assert "order tracking" in ada.get("/accuracy").text


def test_each_label_has_one_key_and_says_what_it_means() -> None:
    """However many labels; the keys of the other buttons are not among them."""
    keys = [key for key, *_ in keyed_labels(TAXONOMY, {}, {})]
    assert keys == ["1", "2", "3", "4"]
    for count, with_key in ((20, 20), (21, 10), (60, 10)):
        many = Taxonomy("many", "1", "", tuple(Label(f"l{n}", "") for n in range(count)))
        keys = [key for key, *_ in keyed_labels(many, {}, {})]
        given = [key for key in keys if key]
        assert len(keys) == count
        assert len(given) == len(set(given)) == with_key
        assert not set(given) & set("usfnmdl/?")
    named = ("Störung", "Stornierung", "Stornierung einer Störung", *(f"l{n}" for n in range(20)))
    many = Taxonomy("many", "1", "", tuple(Label(name, "") for name in named))
    codes = {label.name: code for _, label, code in keyed_labels(many, {}, {"l3": 0.9})}
    assert next(iter(codes)) == "l3"
    assert [codes[name] for name in named[:4]] == ["st", "so", "se", "l0"]
    own = {TAXONOMY.names[2]: "1", TAXONOMY.names[0]: "r"}
    assert [key for key, *_ in keyed_labels(TAXONOMY, own, {})] == ["r", "2", "1", "3"]
    assert not list(wrong_keys(TAXONOMY, own))
    wrong = {"gone": "g", TAXONOMY.names[0]: "n", TAXONOMY.names[1]: "x", TAXONOMY.names[2]: "x"}
    assert len(list(wrong_keys(TAXONOMY, wrong))) == 4


def test_the_script_is_given_the_next_message_before_it_is_needed(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Held for the same person; a decision answers with the one after it; nobody else gets it."""
    for n in range(4):
        world.add(f"Message number {n}")
    ada, bo = browser("ada"), browser("bo")
    first = ada.open("/review").text
    second = press(ada, first, "next", part="1", excluding=field(first, "item"))
    assert "number 1" in second
    assert "<html" not in second
    third = press(ada, first, "label:refund", part="1", excluding=field(second, "item"))
    assert "number 2" in third
    assert "number 3" in bo.open("/review").text
    fourth = press(ada, second, "label:refund", part="1", excluding=field(third, "item"))
    assert "Nothing is left for you here" in fourth
    assert "<html" not in fourth
    again = press(ada, third, "undo", part="1")
    assert "number 1" in again


@pytest.mark.parametrize(
    "query",
    [
        "reason=nonsense&label=none&age=x&order=upside",
        "age=60&order=doubtful",
        "item=99999999999999999999",
        "excluding=a,b,,1&part=1",
        "adapter=%00",
    ],
)
def test_odd_addresses_are_no_error(world: DeskWorld, browser: NewBrowser, query: str) -> None:
    world.add()
    ada = browser("ada")
    assert ada.open(f"/review?{query}").status_code in {200, 204, 409}
    assert ada.get(f"/search?q=a%00b&{query}").status_code == 200
    assert ada.post("/review", {"action": "undo\x00", "note": "\x00"}).status_code == 409


def test_a_queue_goes_on_after_a_decision(world: DeskWorld, browser: NewBrowser) -> None:
    world.add("Not of this queue")
    world.add("One of it", label="refund")
    world.add("Two of it", label="refund")
    ada = browser("ada")
    page = ada.open("/review?label=refund").text
    assert "One of it" in page
    page = press(ada, page, "label:payment", label="refund")
    assert "Two of it" in page
    assert "Not of this queue" not in press(ada, page, "skip", label="refund")


def test_an_ended_session_leads_back_to_the_message_and_the_answer(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """By a link; the script is told in words, for it shows them as one line."""
    world.add()
    ada = browser("ada")
    page = ada.open("/review").text
    ada.client.cookies.clear()
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    sent = ada.client.post("/review", data={**values, "action": "none", "part": "1"})
    assert sent.status_code == 401
    assert sent.text == "You are signed out."
    form = ada.client.post("/review", data={**values, "action": "label:refund"})
    assert form.status_code == 401
    link = re.search(r'href="/sign-in\?next=([^"]+)"', form.text)
    assert link is not None
    back = unquote(link[1])
    assert back == f"/review?item={values['item']}&answer=label%3Arefund"
    signed_in = browser("ada").open(back).text
    assert f'data-item="{values["item"]}"' in signed_in
    assert signed_in.count("your answer before") == 1


def test_loading_a_page_claims_nothing(world: DeskWorld, browser: NewBrowser) -> None:
    """Browsers load pages ahead, and other sites can link to them."""
    item = world.add("Where is my parcel number 12345 from Tuesday?")
    other = world.add("Where is my parcel number 12346 from Tuesday?")
    disputed = world.add("A hard one")
    ada, bo = browser("ada", "owner"), browser("bo", "owner")
    assert bo.person is not None
    reviewing.claim_item(world.desk, bo.person, disputed.id)
    reviewing.decide(world.desk, bo.person, disputed.id, reviewing.Said(world.request(), "flag"))
    paths: tuple[str, ...] = ("/review", f"/review?item={item.id}", "/adjudicate", "/clusters")
    paths += (f"/cluster?key={item.cluster_key}", f"/search?q=parcel&item={other.id}", "/my-day")
    for path in paths:
        assert ada.get(path).status_code == 200
    with world.database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM claims").scalar_one() == 0
    assert "data-begin" in ada.get("/review").text
    assert "data-begin" not in ada.get("/review", **{"Sec-Fetch-Site": "cross-site"}).text
    assert "A hard one" in ada.open("/adjudicate").text
    assert "2 messages" in ada.open(f"/cluster?key={item.cluster_key}").text


def test_loading_the_page_again_after_a_decision_is_no_error(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """A message that was opened from the search, or came back by undo, stays in the address."""
    first = world.add("Where is my parcel?")
    world.add("The next one")
    ada, bo = browser("ada"), browser("bo")
    page = ada.open(f"/review?item={first.id}").text
    assert "Where is my parcel?" in page
    press(ada, page, "label:refund", part="1")
    for visitor, shows in ((ada, "The next one"), (bo, "Nothing is left for you here")):
        again = visitor.open(f"/review?item={first.id}")
        assert again.status_code == 200
        assert shows in again.text


def test_an_adjudicators_undo_leads_back_to_the_dispute(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """From each page with that button, although the next dispute is on screen already."""
    item, other = world.add("A hard one"), world.add("Another hard one")
    world.add("An easy one")
    bo = world.person("bo")
    for each in (item, other):
        reviewing.claim_item(world.desk, bo, each.id)
        reviewing.decide(world.desk, bo, each.id, reviewing.Said(world.request(), "flag"))
    ada = browser("ada", "adjudicator")
    for undo in ({"path": "/adjudicate"}, {"path": "/review"}, {"path": "/review", "part": "1"}):
        page = ada.open(f"/adjudicate?item={item.id}").text
        assert "A hard one" in page
        values = {name: field(page, name) for name in ("item", "request")}
        settled = ada.post("/adjudicate", {**values, "action": "label:refund"})
        assert settled.status_code == 303
        after = ada.open("/adjudicate").text
        assert 'value="undo"' in after
        assert "Another hard one" in after
        assert world.item(item.id).state == "decided"
        undone = ada.post(undo["path"], {"action": "undo", **undo})
        there = undone.text if "part" in undo else undone.headers["location"]
        shown = ada.get(there).text
        assert "A hard one" in shown
        assert "Another hard one" not in shown
        assert "your answer before is marked" in shown
        assert shown.count("your answer before</small>") == 1
        assert world.item(item.id).state == "dispute"


def test_the_last_answers_are_beside_the_message_and_can_be_changed(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Newest first, of this person alone; what a second reviewer still has to say is not final."""
    items = [world.add(f"Message number {n}") for n in range(13)]
    ada = browser("ada")
    page = ada.open("/review?reason=low_confidence").text
    assert "data-last hidden" in page
    for n in range(11):
        page = press(ada, page, "none" if n == 5 else "label:refund")
    listed = page.partition("Your last answers")[2]
    assert re.findall(r"Message number (\d+)", listed) == [str(n) for n in range(10, 0, -1)]
    assert re.findall(r'name="answer" value="([^"]+)"', listed) == [
        "none" if n == 5 else "label:refund" for n in range(10, 0, -1)
    ]
    values = {
        name: re.findall(rf'name="{name}" value="([^"]+)"', listed)[3]
        for name in ("csrf", "reason", "item", "request", "answer")
    }
    assert values["item"] == str(items[7].id)
    there = ada.client.post("/reopen", data=values).headers["location"]
    assert f"reason=low_confidence&item={items[7].id}" in there
    again = ada.open(there).text
    assert "Message number 7" in again.partition("Your last answers")[0]
    assert "your answer before" in again
    press(ada, again, "label:payment")
    assert world.item(items[7].id).outcome_label == "payment"


def test_a_search_is_decided_one_by_one_and_led_back_to(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """With what else is chosen by; the audit sample stays out, because nothing may hint at it."""
    for n, (text, label, sure) in enumerate(
        (
            ("My refund is late", "refund", 0.3),
            ("Where is my parcel?", "refund", 0.3),
            ("A refund, please", "payment", 0.3),
            ("Refunds take long", "refund", 0.6),
            ("No refund came", "refund", 0.4),
        )
    ):
        world.add(text, label=label, confidence=sure, offset=n)
    world.add("A blind refund", label="refund", confidence=0.3, origin="audit")
    ada = browser("ada")
    assert (
        'href="/review?q=refund&amp;label=refund"' in ada.open("/search?q=refund&label=refund").text
    )
    page, seen = ada.open("/review?q=refund&label=refund&below=50").text, []
    while "Nothing is left for you here" not in page:
        seen.append(re.findall(r'class="text[^>]*>([^<]+)<', page)[0].strip())
        page = press(ada, page, "label:refund")
    assert seen == ["My refund is late", "No refund came"]
    assert 'href="/search?q=refund&amp;label=refund"' in page


def test_the_day_has_a_goal_and_says_where_an_adjudicator_decided_otherwise(
    world: DeskWorld, browser: NewBrowser
) -> None:
    world.desk = replace(world.desk, policy=replace(world.desk.policy, goal=3))
    ada, eve = browser("ada"), world.person("eve", "adjudicator")
    first, second, _ = (world.add(f"Message number {n}") for n in range(3))
    page = ada.open("/review").text
    assert "0 of 3 today" in page
    page = press(ada, press(ada, page, "label:refund"), "label:refund")
    assert "2 of 3 today" in page
    assert "otherwise" not in ada.get("/my-day").text
    for item, label in ((first, "payment"), (second, "refund")):
        reviewing.reopen(world.desk, eve, item.id, request_id=f"again-{item.id}")
        said = reviewing.Said(f"final-{item.id}", "label", label, "A <b>payment</b>, see above")
        reviewing.decide(world.desk, eve, item.id, said, final=True)
    day = ada.get("/my-day").text
    told = day.partition("Where an adjudicator decided otherwise")[2].partition("<h2>")[0]
    assert re.findall(r"Message number \d", told) == ["Message number 0"]
    assert "<td>refund</td><td>payment</td>" in told
    assert "A &lt;b&gt;payment&lt;/b&gt;, see above" in told
    assert '<progress value="2" max="3"' in day
