"""Personal data is redacted, order numbers stay, and hostile texts take linear time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.slow import steps
from tests.support.any_text import any_text
from worker.contract.redact import (
    MARGIN_CHARS,
    PLACEHOLDERS,
    redact_head,
    redact_personal_data,
    redact_tail,
)

pytestmark = pytest.mark.slow

REDACTED = [
    ("write to jo.o'brien+shop@mail.example.co.uk.", "write to [mail].", "mail"),
    ("<a_b%c@ex-ample.org>", "<[mail]>", "mail"),
    ("jürgen@müller.example", "[mail]", "mail"),
    ("anna (at) example.com please", "[mail] please", "mail"),
    ("anna[at]example.com", "[mail]", "mail"),
    ("mailto:a@b.io?", "mailto:[mail]?", "mail"),
    ("IBAN DE89 3704 0044 0532 0130 00 and", "IBAN [iban] and", "iban"),
    ("de89370400440532013000", "[iban]", "iban"),
    ("to GB29-NWBK-6016-1331-9268-19.", "to [iban].", "iban"),
    ("NO93 8601 1117 947", "[iban]", "iban"),
    ("card 4111 1111 1111 1111 exp 12/27", "card [card] exp 12/27", "card"),
    ("4111-1111-1111-1111", "[card]", "card"),
    ("5500005555555559", "[card]", "card"),
    ("3782 822463 10005", "[card]", "card"),
    ("order 12345 card 4111111111111111!", "order 12345 card [card]!", "card"),
    ("+49 (0)170 123 45 67 now", "[phone] now", "phone"),
    ("(+44) 20 7946 0958", "[phone]", "phone"),
    ("0044 20 7946 0958", "[phone]", "phone"),
    ("Tel.: 0170/1234567", "Tel.: [phone]", "phone"),
    ("01.23.45.67.89", "[phone]", "phone"),
    ("020-7946-0958 (evenings)", "[phone] (evenings)", "phone"),
    ("(020) 7946 0958", "[phone]", "phone"),
    ("(07700 900123)", "([phone])", "phone"),
    ("1-800-555-0199", "[phone]", "phone"),
    ("(212) 555-0123", "[phone]", "phone"),
    ("my phone number is 5551234567", "my phone number is [phone]", "phone"),
    ("order 12345, call 5551234", "order 12345, call [phone]", "phone"),
    ("0170 1234567 since 15.01.2024", "[phone] since 15.01.2024", "phone"),
    ("0170 1234567 15.01.2024", "[phone] 15.01.2024", "phone"),
    ("12345 020 7946 0958", "12345 [phone]", "phone"),
    ("٠١٧٠ ١٢٣٤٥٦٧", "[phone]", "phone"),
]

KEPT = [
    "order 0123456789 has not come",
    "Order no. 212-555-0123",
    "my order 48-1123",
    "#0123456789",
    "Rechnung 0049123456789",
    "ticket 5551234567",
    "5551234567",
    "tracking 00340434161094042557",
    "JD014600003828392512",
    "1Z999AA10123456784",
    "account 12345678, sort code 20-00-00",
    "4111 1111 1111 1112 fails its check digit",
    "1234567812345670 begins like no card",
    "DE88 3704 0044 0532",
    "XX89370400440532013000",
    "GB29NWBK60161331926819X",
    "01.02.2024 10:30",
    "from 10-12-2023 - 11-12-2023",
    "2024-01-15 10:30:00",
    "20240115103000",
    "1.234.567,89 €",
    "€ 1 000 000 000",
    "paid EUR 0123456789",
    "01234567890 dollars",
    "0.123456789",
    "-12.50",
    "192.168.001.001",
    "5 apples@1.50",
    "@handle and name@host",
    "24/7, 50 %, 3x2, 10-20 days",
    "between 9 and 17, room 0800",
]


@pytest.mark.parametrize(("text", "wanted", "kind"), REDACTED, ids=lambda value: str(value)[:30])
def test_personal_data_is_redacted_and_counted(text: str, wanted: str, kind: str) -> None:
    assert redact_personal_data(text) == (wanted, {kind: 1})


@pytest.mark.parametrize("text", KEPT, ids=lambda one: one[:30])
def test_what_a_clerk_reads_stays(text: str) -> None:
    assert redact_personal_data(text) == (text, {})


pieces = st.sampled_from(
    [
        *("0", "1", "4", "9", "00", "170", "555", "0123", "1234567", "4111111111111111"),
        *("+", "(", ")", " ", "-", ".", "/", ",", "@", " (at) ", "a", "b.io", "DE89", "€", "#"),
        *("call ", "order ", "3704", "0044", "0532", "01.02.2024", "١", *PLACEHOLDERS.values()),
    ]
)


@given(st.lists(pieces, max_size=40).map("".join) | any_text)
def test_redacting_a_redacted_text_changes_nothing(text: str) -> None:
    """Training and serving may redact a text that an export has redacted before."""
    once, _ = redact_personal_data(text)
    assert redact_personal_data(once) == (once, {})


def redacted(text: str) -> str:
    return redact_personal_data(text)[0]


@given(st.lists(pieces | st.just("\n"), max_size=60).map("".join) | any_text)
def test_a_line_is_redacted_by_itself(text: str) -> None:
    assert redacted(text) == "\n".join(map(redacted, text.split("\n")))


FILLER = "my parcel has not come yet, what now? "


LONGEST_ADDRESS = "l" * 128 + "@" + "d." * 126 + "com"


@pytest.mark.parametrize(
    "text", [*(text for text, _, _ in REDACTED), LONGEST_ADDRESS], ids=lambda text: text[:30]
)
def test_a_cut_anywhere_in_personal_data_leaves_none_of_it(text: str) -> None:
    """Wherever the cut falls, both ends equal those of the whole message redacted."""
    left, right = FILLER * 40, FILLER * 40
    message = f"{left}\n{text}\n{right}"
    whole = redacted(message)
    for at in range(len(left) - 1, len(left) + len(text) + 3):
        head, tail = redact_head(message, at), redact_tail(message, len(message) - at)
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + len(tail) >= len(whole)
        assert len(head) + len(tail) <= len(whole) + len("[phone]")


@given(st.lists(pieces, max_size=80).map("".join) | any_text, st.integers(1, 30), st.integers(0))
def test_the_head_of_a_text_is_redacted_as_in_the_whole(text: str, times: int, at: int) -> None:
    text *= times
    head = redact_head(text, at % (len(text) + 1))
    assert redacted(text).startswith(head)


@given(st.lists(pieces, max_size=80).map("".join), st.integers(1, 30), st.integers(0))
def test_the_tail_of_a_text_is_redacted_as_in_the_whole(text: str, times: int, at: int) -> None:
    line = text.replace("\n", " ")[: MARGIN_CHARS // 2]
    text = f"{line}\n" * times
    tail = redact_tail(text, at % (len(text) + 1))
    assert redacted(text).endswith(tail)


def test_a_row_of_phone_numbers_without_an_end_is_redacted_from_any_place() -> None:
    text = "0170 1234567 0171 2345678 " * 400
    for chars in range(3000, 3030):
        for end in (redact_head(text, chars), redact_tail(text, chars)):
            assert not any(map(str.isdigit, end))
            assert "[phone] [phone]" in end


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "00 ",
            "0 ",
            "1 ",
            "01 ",
            "1-",
            "4111 ",
            "5555 ",
            "#01 ",
            "DE89 ",
            "a@",
            "a@b.cc ",
            "[at]",
        ),
        *("0123456789#", "&1234567", "order 0123456 ", "444 444 4444 ", "order" + " 01" * 13 + " "),
    ],
)
def test_a_character_takes_a_bounded_number_of_steps(unit: str) -> None:
    """Counted in steps of the Python interpreter. A rule that looked at fifteen groups for each
    group took 430 steps per character."""
    text = (unit * 3_000)[:3_000]
    assert steps(redact_personal_data, text) < 200 * len(text)
