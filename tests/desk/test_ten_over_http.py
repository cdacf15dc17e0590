"""Ten people decide at once over HTTP, with sessions of their own, at two replicas."""

from __future__ import annotations

import html
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping

import httpx2

from desk.service import people
from desk.store.database import Database
from desk.web.identity import csrf_token
from desk.web.server import serve
from desk.web.visit import WebOptions
from tests.support.desk_world import DeskWorld
from tests.support.processes import PATIENCE_S

MESSAGES = 80
OPTIONS = WebOptions(method="local", port=0)


class Reviewer(threading.Thread):
    """Somebody with a browser: the page's script holds the next message while they read one."""

    def __init__(self, world: DeskWorld, name: str, address: str) -> None:
        super().__init__(daemon=True)
        token = people.begin_session(
            world.desk, world.person(name), longest_ms=3_600_000, idle_ms=3_600_000
        )
        cookie = f"{OPTIONS.session_cookie}={token}"
        self.client = httpx2.Client(base_url=address, headers={"Cookie": cookie}, timeout=60)
        self.csrf = csrf_token(token)
        self.seen: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self.client:
                self.decide_all()
        except BaseException as error:
            self.failure = error
            raise

    def decide_all(self) -> None:
        shown = self.next()
        while shown:
            ahead = self.next(shown["item"])
            after = self.decide(shown, excluding=ahead)
            if ahead:
                self.decide(ahead, excluding=after)
            shown = after or self.next()

    def next(self, excluding: str = "") -> Mapping[str, str]:
        """Claim a message besides those on screen."""
        form = {"csrf": self.csrf, "action": "next", "part": "1", "excluding": excluding}
        return self.ask("POST", "/review", form)

    def decide(self, shown: Mapping[str, str], excluding: Mapping[str, str]) -> Mapping[str, str]:
        """Give a message a label; return the one after those on screen."""
        form = {
            **shown,
            "action": "label:refund",
            "part": "1",
            "excluding": excluding.get("item", ""),
        }
        return self.ask("POST", "/review", form)

    def ask(
        self, method: str, path: str, form: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """The hidden fields of the message that comes back; nothing where there is none."""
        until = time.monotonic() + PATIENCE_S
        while (answer := self.client.request(method, path, data=form)).status_code == 503:
            assert time.monotonic() < until  # the page's script sends it again, too
            time.sleep(0.5)
        assert answer.status_code == 200, answer.text
        found = re.findall(r'<input type="hidden" name="([a-z]+)" value="([^"]*)"', answer.text)
        form = {name: html.unescape(value) for name, value in found}
        if "item" not in form:
            return {}
        self.seen.append(form["item"])
        return {name: form[name] for name in ("csrf", "item", "request")}


def test_ten_people_over_http_get_no_message_twice(world: DeskWorld) -> None:
    """Each message is shown to one person and decided by them, and all are."""
    items = world.add_all([(f"where is parcel {n}?", {}) for n in range(MESSAGES)])
    with serve(world.desk, OPTIONS) as first, serve(world.desk, OPTIONS) as second:
        team = [Reviewer(world, f"person{n}", (first, second)[n % 2]) for n in range(10)]
        for each in team:
            each.start()
        for each in team:
            each.join(300)
    assert [each.failure for each in team if each.failure] == []
    holders = Counter(item for each in team for item in set(each.seen))
    assert max(holders.values()) == 1
    assert holders.keys() == {str(item.id) for item in items}
    assert sum(bool(each.seen) for each in team) > 1
    assert decided(world.database) == MESSAGES


def decided(database: Database) -> int:
    """How many items have exactly one decision."""
    with database.read() as tx:
        return int(
            tx.exec_driver_sql(
                "SELECT count(*) FROM (SELECT item_id FROM decisions GROUP BY item_id "
                "HAVING count(*) = 1) AS once"
            ).scalar_one()
        )
