"""Every message is cleaned as serving does it, and as was asked."""

from __future__ import annotations

from trainer.dataset.clean import Cleaner, clean
from trainer.dataset.folder import Row


def test_a_message_that_is_all_quotation_stays_whole() -> None:
    """Emptied, it would be lost; serving would see it whole. It is counted."""
    row = Row("a", "> Hello\r\n> there", "refund", None, "x:1")
    done = clean([row], Cleaner(quotes=True))
    assert done.rows[0].message == "> Hello\n> there"
    assert done.left_whole == 1
    assert done.changed == {"normalized": 1}
