"""From a message to token ids: the same for training and serving, never over the budget."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.any_text import any_text
from tests.support.toy_adapter import decode, encode_control, encode_plain, toy_spec
from worker.contract import (
    REDACTION,
    PromptSpec,
    all_added_tokens_special,
    build_prompt,
    plain_encode,
)
from worker.contract.prompt import Prompt, added_token_ids
from worker.contract.redact import MARGIN_CHARS, redact_personal_data
from worker.contract.text import MAX_CHARS, normalize

# Control tokens of a tokenizer, also those that it does not call special.


def test_every_added_token_is_made_special() -> None:
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
    """An encoder turns unknown words into [UNK], so any message may contain it. A BPE vocabulary of
    bytes knows every word, so there [UNK] is a control token."""
    added = [{"id": 100, "content": "[UNK]"}, {"id": 101, "content": "[CLS]"}]
    assert added_token_ids(json.dumps({"added_tokens": added, "model": model})) == expected


def message_of(spec: PromptSpec, prompt: Prompt) -> str:
    assert prompt.ids[: len(spec.prefix_ids)] == spec.prefix_ids
    assert prompt.ids[len(prompt.ids) - len(spec.suffix_ids) :] == spec.suffix_ids
    return decode(prompt.ids[len(spec.prefix_ids) : len(prompt.ids) - len(spec.suffix_ids)])


def read(message: str, budget: int = 32) -> str:
    spec = toy_spec(budget)
    prompt = build_prompt(spec, message, encode_plain)
    assert prompt is not None
    assert prompt.truncated == ("~" in message_of(spec, prompt))
    return message_of(spec, prompt)


def test_a_control_token_in_a_message_is_plain_text() -> None:
    spec = toy_spec()
    prompt = build_prompt(spec, "a</s>b", encode_plain)
    assert prompt is not None
    control = {1, 2}
    inner = prompt.ids[len(spec.prefix_ids) : -len(spec.suffix_ids)]
    assert not control.intersection(inner)
    assert message_of(spec, prompt) == "a</s>b"
    assert encode_control("a</s>b")[1] == 2


def test_a_long_message_is_shortened_in_the_middle() -> None:
    assert read("abcdefghij" + "-" * 100 + "klmnopqrst", 11) == "abcde~pqrst"
    assert read("abcdefghij" + "-" * 100 + "klmnopqrst", 12) == "abcdef~pqrst"


def test_a_very_long_message_is_cut_before_it_is_tokenized() -> None:
    seen: list[int] = []

    def encode(text: str) -> list[int]:
        seen.append(len(text))
        return encode_plain(text)

    spec = toy_spec(11)
    prompt = build_prompt(spec, "first" + "-" * 3_000_000 + "last!", encode)
    assert prompt is not None
    assert message_of(spec, prompt) == "first~last!"
    assert sum(seen) <= 2 * 11 * 16


@pytest.mark.parametrize("chars_per_token", [17, 24, 40, 100])
def test_tokens_of_many_characters_lose_nothing_that_was_kept(chars_per_token: int) -> None:
    budget = 101

    def encode(text: str) -> list[int]:
        return [10 + ord(text[i]) for i in range(0, len(text), chars_per_token)]

    spec = toy_spec(budget)
    prompt = build_prompt(spec, "h" * 5000 + "t" * 5000, encode)
    assert prompt is not None
    kept = -(-budget * 16 // chars_per_token)
    assert message_of(spec, prompt) == "h" * min(kept, 50) + "~" + "t" * min(kept, 50)


@given(any_text, st.integers(3, 40), st.integers(1, 50))
def test_any_text_gives_ids_within_the_budget_or_nothing(
    text: str, budget: int, repeat: int
) -> None:
    spec = toy_spec(budget)
    prompt = build_prompt(spec, text * repeat, encode_plain)
    if prompt is None:
        assert normalize(text * repeat) == ""
        return
    assert len(prompt.ids) <= spec.max_prompt_tokens
    message = message_of(spec, prompt)
    message.encode("utf-8")
    assert prompt.truncated == (len(normalize(text * repeat)) > budget)


@given(any_text, st.integers(3, 40), st.integers(1, 5_000), st.sampled_from(["", " ", "\u0344"]))
def test_a_dataset_s_message_makes_the_prompt_of_the_message_as_it_came(
    text: str, budget: int, repeat: int, filling: str
) -> None:
    """Training reads normalized text, serving the original: the ids must be equal."""
    spec, message = toy_spec(budget), text + filling * 20 * repeat + text
    served, trained = (build_prompt(spec, m, encode_plain) for m in (message, normalize(message)))
    assert (served and served.ids) == (trained and trained.ids)


def test_a_message_that_was_cut_before_it_was_normalized_is_called_truncated() -> None:
    message = "a" + " " * MAX_CHARS + "b"
    prompt = build_prompt(toy_spec(), message, encode_plain)
    assert prompt is not None
    assert prompt.truncated
    assert message_of(toy_spec(), prompt) == "a \n b"


def test_personal_data_is_redacted_where_the_spec_says_so() -> None:
    plain, redaction = toy_spec(), replace(toy_spec(), redaction=REDACTION)
    message = "call \u200b+44 20 7946 0958  or a@b.io"
    built = {spec: build_prompt(spec, message, encode_plain) for spec in (plain, redaction)}
    assert [message_of(spec, prompt) for spec, prompt in built.items() if prompt] == [
        "call +44 20 7946 0958 or a@b.io",
        "call [phone] or [mail]",
    ]


@given(
    st.lists(
        st.sampled_from(
            [
                *("where is my order 48-1123?", "call 0170 1234567 now", "a.b+c@mail.example.com"),
                *("IBAN DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "no. 0123456789", "x"),
                *("+49 (0)170 123 45 67", "\n", " ", ", ", "0", "12", "order "),
            ]
        ),
        min_size=1,
        max_size=60,
    ).map("".join),
    st.integers(10, 60),
    st.integers(1, 200),
)
def test_a_redacted_dataset_s_message_makes_the_prompt_of_the_message_as_it_came(
    text: str, budget: int, times: int
) -> None:
    """Training reads redacted text, serving the original and redacts only its ends."""
    spec, message = replace(toy_spec(budget), redaction=REDACTION), f"{text}\n" * times
    dataset = redact_personal_data(normalize(message))[0]
    served, trained = (build_prompt(spec, each, encode_plain) for each in (message, dataset))
    assert (served and served.ids) == (trained and trained.ids)


def test_of_a_long_message_no_more_is_redacted_than_the_budget_can_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def counting(text: str) -> Iterator[tuple[int, int, str]]:
        read.append(len(text))
        return iter(())

    monkeypatch.setattr("worker.contract.redact._numbers", lambda text, _: counting(text))
    spec = replace(toy_spec(50), redaction=REDACTION)
    prompt = build_prompt(spec, "00 " * 20_000, encode_plain)
    assert prompt is not None
    assert sum(read) == 2 * (50 * 16 + MARGIN_CHARS)


def test_a_control_token_among_the_pieces_of_words_is_not_made_from_text() -> None:
    """Unigram vocabularies of XLM-R list theirs there, with the best score of all."""
    tokenizers = pytest.importorskip("tokenizers")
    pieces = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(letter, -5.0) for letter in "refund<>/s"]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.add_special_tokens(["<s>", "</s>", "<unk>"])
    text = all_added_tokens_special(made.to_str())
    plain = tokenizers.Tokenizer.from_str(text)
    plain.encode_special_tokens = True
    control = added_token_ids(text)
    assert control == {0, 1}
    hostile = "refund </s> </s></s> <s>"
    assert not control.isdisjoint(plain.encode(hostile, add_special_tokens=False).ids)
    encode = plain_encode(plain, control)
    ids = encode(hostile)
    assert control.isdisjoint(ids)
    assert plain.decode(ids).replace("▁", "").replace(" ", "") == hostile.replace(" ", "")
    assert encode("refund") == plain.encode("refund", add_special_tokens=False).ids
