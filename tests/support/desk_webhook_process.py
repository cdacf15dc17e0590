"""The webhook's sender in its own process: ``URL_OF_DATABASE URL_OF_RECEIVER``.

Ends when nothing is left to deliver.
"""

from __future__ import annotations

import sys

from desk.clock import now_ms
from desk.outbox import WebhookSender, make_post
from desk.store.database import Database


def main(database_url: str, receiver_url: str) -> None:
    """Deliver all that waits."""
    database = Database(database_url)
    post = make_post(receiver_url)
    sender = WebhookSender(database, post, now_ms, name="desk", key=b"k" * 16)
    while sender.run_once():
        pass
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
