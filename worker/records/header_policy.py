"""Which of an input record's headers go along to its result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache

from worker.contract.records import Headers, without_worker_headers

ALL = ("*",)
_REMEMBERED = 4096


class HeaderPolicy:
    """Patterns of names, as a shell has them (``trace*``); what is denied is not allowed.

    Names are compared as they are: Kafka's headers know no case. What a worker has put on a record
    that is sent again never goes along.
    """

    def __init__(self, allow: Sequence[str] = ALL, deny: Sequence[str] = ()) -> None:
        self._everything = tuple(allow) == ALL and not deny
        allowed, denied = _pattern(allow), _pattern(deny)
        self._keeps = lru_cache(_REMEMBERED)(
            lambda name: bool(allowed.fullmatch(name)) and not denied.fullmatch(name)
        )

    def keep(self, headers: Headers) -> Headers:
        """Return the headers that go along, in their order."""
        own = without_worker_headers(headers)
        if self._everything or not own:
            return own
        return tuple(header for header in own if self._keeps(header[0]))


def _pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """Match any of these; none at all match nothing."""
    return re.compile("|".join(translate(glob) for glob in globs) or r"(?!)", re.DOTALL)
