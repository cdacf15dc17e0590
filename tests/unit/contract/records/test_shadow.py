"""What a shadow said, beside what the main adapter said."""

import pytest

from tests.support.fakes import NOW
from tests.support.records import toy_record
from tests.support.toy_adapter import small_manifest
from worker.contract import Decision
from worker.contract.errors import RecordRefused
from worker.contract.records import ShadowRecord, read_output, read_shadow, shadow_headers
from worker.records.output import OutputEncoder
from worker.records.types import Classified, Timing

RESULT = Classified(Decision("other", 0.9, {"other": 0.9}, None), None, False, (), Timing(0, 0))
VALUE = (
    OutputEncoder(small_manifest(), "9.9", ("fp32",))
    .encode(toy_record(), RESULT, "shadow", NOW)
    .value
)


def test_both_labels_are_read() -> None:
    """The shadow's in the value, the real one in the headers that the worker added last."""
    headers = [("clerk.main.label", b"the sender's own"), *shadow_headers("ünï", "abc")]
    assert read_shadow(VALUE, headers) == ShadowRecord(read_output(VALUE), "ünï", "abc")


@pytest.mark.parametrize("place", [0, 1])
def test_a_shadow_record_without_its_headers_is_refused(place: int) -> None:
    """It cannot be compared with anything."""
    with pytest.raises(RecordRefused, match=r"lacks the header clerk\.main\.label or"):
        read_shadow(VALUE, [shadow_headers("billing", "abc")[place]])


def test_a_shadow_record_is_an_output_record() -> None:
    """What is none is refused as that."""
    with pytest.raises(RecordRefused, match="the output record: there is no value"):
        read_shadow(None, shadow_headers("billing", "abc"))
