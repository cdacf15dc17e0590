"""Control tokens of a tokenizer, also those that it does not call special."""

import json

import pytest

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


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"type": "WordPiece", "unk_token": "[UNK]"}, {101}),
        ({"type": "WordLevel", "unk_token": "[UNK]"}, {101}),
        ({"type": "Unigram", "unk_id": 100}, {101}),
        ({"type": "BPE", "unk_token": "[UNK]"}, {100, 101}),
    ],
)
def test_what_a_vocabulary_lacks_is_no_control_token(
    model: dict[str, object], expected: set[int]
) -> None:
    """A word that an encoder does not know becomes [UNK]: any message may have it. A vocabulary
    of bytes knows every word, so there it is a control token like others."""
    added = [{"id": 100, "content": "[UNK]"}, {"id": 101, "content": "[CLS]"}]
    assert added_token_ids(json.dumps({"added_tokens": added, "model": model})) == expected
