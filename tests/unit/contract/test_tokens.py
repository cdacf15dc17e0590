"""Control tokens of a tokenizer, also those that it does not call special."""

from worker.contract import all_added_tokens_special
from worker.contract.tokens import added_token_ids


def test_every_added_token_is_made_special_and_told() -> None:
    """Marks that a base forgot to call special are control vocabulary all the same."""
    text = (
        '{"added_tokens": [{"id": 7, "content": "<tool>", "special": false}, {"id": 8}], "x": "ü"}'
    )
    assert added_token_ids(text) == {7, 8}
    changed = all_added_tokens_special(text)
    assert changed.count('"special": true') == 2
    assert "ü" in changed
    assert added_token_ids("{}") == frozenset()
