"""Preparing a message takes time in proportion to its length, so that none stalls a worker.

The tests compare CPU times: four times the length may take eight times as long, half of it noise.
Quadratic code takes sixteen times as long.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace

import pytest

from tests.support.rig import toy_record
from tests.support.toy_adapter import encode_plain, toy_manifest, toy_spec
from worker.contract import REDACTION, Thresholds
from worker.contract.records import InputFormat
from worker.core.labeller import Labeller
from worker.errors import MessageRejected

pytestmark = pytest.mark.slow

N = 32_768

KINDS = {
    "marks": "\u0301",
    "marks in no order": "\u0301\u0323",
    "marks that come apart": "\u0344",
    "starters that come apart into marks": "\u0f73",
    "marks between characters that are dropped": "\u0301\u200b",
    "letters that come apart": "\ufb2c",
    "letters with a mark": "a\u0301",
    "Hangul": "\u1112\u1161\u11ab",
    "blanks": " ",
    "wide blanks": "\u00a0\u2003",
    "line ends": "\r\n",
    "controls": "\x00",
    "right to left": "\u202e\u05d0",
    "joined emoji": "\U0001f468\u200d",
    "digits": "7",
    "groups of digits": "12 ",
    "zeros in pairs": "00 ",
    "single digits": "1 ",
    "numbers behind a sign": "0123456789#",
    "digits and dots": "1.",
    "digits and dashes": "1-",
    "cards": "4111 1111 1111 1111 ",
    "phones": "call 020 7946 0958 ",
    "IBANs": "GB82WEST12345698765432 ",
    "nearly IBANs": "DE12 3456 ",
    "at signs": "@",
    "nearly addresses": "a@",
    "addresses": "a@b.example ",
    "domains": "a@b.",
    "spelled at signs": "a (at) b ",
    "brackets": "[(",
    "plus signs": "(+",
    "placeholders": "[mail]",
    "one word": "a",
    "dots": "a.",
}


def labeller() -> Labeller:
    spec = replace(toy_spec(), redaction=REDACTION)
    manifest = toy_manifest(prompt=spec)
    return Labeller(manifest, encode_plain, Thresholds(0.5), InputFormat())


def cpu_s(labeller: Labeller, value: bytes) -> float:
    """Return the least CPU time of three tries to prepare a record, in seconds."""
    record = toy_record(value)
    times = []
    for _ in range(3):
        begin = time.process_time()
        with contextlib.suppress(MessageRejected):
            labeller.prepare(record)
        times.append(time.process_time() - begin)
    return min(times)


def check_linear(labeller: Labeller, short: bytes, long: bytes) -> None:
    once, four_times = cpu_s(labeller, short), cpu_s(labeller, long)
    # A few milliseconds are too short to compare, and harmless.
    assert four_times < 8 * max(once, 0.005), f"{once:.4f} s, then {four_times:.4f} s"


def message(characters: int, unit: str) -> bytes:
    return json.dumps({"message": (unit * (characters // len(unit) + 1))[:characters]}).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_for_a_message_grows_with_its_length_at_most(kind: str) -> None:
    """From the bytes to the prompt."""
    unit = KINDS[kind]
    check_linear(labeller(), message(N, unit), message(4 * N, unit))


VALUES = {
    "deep lists": ("", "[", ""),
    "deep objects": ("", '{"a":', ""),
    "many objects": ("[", "{},", "1]"),
    "one key again and again": ("{", '"message":"a",', '"message":"b"}'),
    "a long number": ("", "9", ""),
    "a long fraction": ('{"message":0.', "1", "}"),
    "escaped halves of pairs": ('{"message":"', "\\ud800", '"}'),
    "an id of halves of pairs": ('{"message":"a","id":"', "\\ud800", '"}'),
    "escaped marks": ('{"message":"', "\\u0323\\u0301", '"}'),
    "blanks around a value": ("", " ", "1"),
    "a string without an end": ('{"message":"', "a", ""),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_time_to_parse_any_value_grows_with_its_length_at_most(kind: str) -> None:
    begin, unit, end = VALUES[kind]
    short, long = (begin + unit * (n // len(unit)) + end for n in (N, 4 * N))
    check_linear(labeller(), short.encode(), long.encode())


def test_text_beyond_the_length_limit_costs_only_its_decoding() -> None:
    unit = KINDS["groups of digits"]
    at_bound, beyond = (cpu_s(labeller(), message(n, unit)) for n in (65_536, 655_360))
    assert beyond < 3 * at_bound
