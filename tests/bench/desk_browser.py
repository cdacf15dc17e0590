"""How soon the next message is on screen, by the browser's own clock.

    python -m tests.bench.desk_browser [--decisions 300]

From the key to the end of the first frame that shows the next message, in Debian's Chromium, with
the desk as tests/support/desk_site.py runs it: sign-in by a provider, PostgreSQL, Kafka.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tests.support.desk_day import Reviewer
from tests.support.desk_site import Site, open_site
from worker.demo.broker import LocalBroker


def wait_for_messages(site: Site, reviewer: Reviewer, count: int) -> None:
    """Wait until so many can be decided."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        reviewer.page.goto(reviewer.address)
        shown = reviewer.page.locator(".figure strong").first.inner_text()
        if int(shown.replace(",", "")) >= count:
            return
        time.sleep(1)
    raise AssertionError("the messages do not come")


def main() -> None:
    """Decide as fast as the desk answers, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=300)
    given = parser.parse_args()
    topics = {name: f"browser.{name}" for name in ("in", "labels", "review", "corrections")}
    with LocalBroker() as broker, open_site(broker.bootstrap_servers, topics) as site:
        doubt = {"reasons": ["low_confidence"]}
        wanted = given.decisions + 5
        text = "My lamp number {} has not come yet, and nobody could tell me where it is."
        site.publish([(text.format(n), doubt) for n in range(wanted)])
        ada = Reviewer(site, "ada", site.addresses[0])
        wait_for_messages(site, ada, wanted)
        ada.start()
        for turn in range(given.decisions):
            ada.press(str(1 + turn % 9))
        took = sorted(ada.took_ms())
        parts = statistics.quantiles(took, n=100)
        print(
            f"{len(took)} decisions: p50 {parts[49]:.0f} ms, p90 {parts[89]:.0f} ms, "
            f"p99 {parts[98]:.0f} ms, most {took[-1]:.0f} ms"
        )


if __name__ == "__main__":
    main()
