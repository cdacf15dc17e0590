"""Which headers go along to a result."""

import pytest

from worker.contract.records import Headers, Replay
from worker.records.header_policy import HeaderPolicy

HEADERS: Headers = (
    ("traceparent", b"1"),
    ("tenant", b"a"),
    ("auth.token", b"secret"),
    ("tenant", b"b"),
    ("", None),
)


@pytest.mark.parametrize(
    ("allow", "deny", "kept"),
    [
        (("*",), (), ["traceparent", "tenant", "auth.token", "tenant", ""]),
        (("*",), ("auth.*",), ["traceparent", "tenant", "tenant", ""]),
        (("t*",), (), ["traceparent", "tenant", "tenant"]),
        (("t*", "auth.*"), ("tenant", "*.token"), ["traceparent"]),
        ((), (), []),
        (("Tenant",), (), []),
    ],
)
def test_what_is_allowed_and_not_denied_is_kept_in_order(
    allow: tuple[str, ...], deny: tuple[str, ...], kept: list[str]
) -> None:
    """Patterns as in a shell; several headers of one name are all kept."""
    assert [name for name, _ in HeaderPolicy(allow, deny).keep(HEADERS)] == kept


def test_a_workers_own_headers_never_go_along() -> None:
    """Also where everything is allowed: they tell of another time."""
    headers: Headers = (("clerk.reason", b"not_json"), ("clerk.main.label", b"x"), ("mine", b""))
    assert HeaderPolicy().keep(headers) == (("mine", b""),)
    assert HeaderPolicy().keep(()) == ()


def test_a_replays_headers_stay_with_the_dead_letter_of_that_replay() -> None:
    """Sent again they would say that the new result was made in the old replay."""
    replay = Replay("r1", "2026-01-05T00:00:00.000Z", "a new adapter")
    assert HeaderPolicy().keep((*replay.headers(), ("mine", b""))) == (("mine", b""),)
