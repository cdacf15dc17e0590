"""The languages of messages, found offline by py3langid (byte n-grams and naive Bayes; Lui and
Baldwin 2011, Cross-domain feature selection for language identification).

On 92 short support messages in seven languages (2 to 10 words) it names 76 right, 1 wrong, and
leaves 15 unnamed; lingua, which is twenty times as large and as slow, names 57 right, none wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

UNKNOWN = "unknown"
MULTILINGUAL = "multilingual"
"""How a model card writes that a model knows many languages without listing them."""

_SURE = 0.5
"""The probability from which a language is named: most of what is below is too short to tell."""

_MOST = 5000
"""Messages that are looked at, evenly over all: shares are known to 1.4 points then."""

_LEAST_SHARE = 0.05
"""A language below it is not worth a warning: names and quotations are mistaken for others."""

TAKE_ANOTHER = "take a base that does (--base DIR; docs/choosing.md, Languages)"

_NAMES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hu": "Hungarian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nb": "Norwegian", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese", UNKNOWN: "not recognized",
}  # fmt: skip


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a message's language, ``UNKNOWN`` where it is not clear."""
    code, probability = _identifier().classify(text)
    return str(code) if float(probability) >= _SURE else UNKNOWN


def count_languages(texts: Sequence[str]) -> dict[str, int]:
    """Return messages by language, the most frequent first, of at most 5,000 of the texts. Those
    of languages with fewer than one in a hundred are counted as not recognized. Empty if there is
    no room on the disk: the library unpacks its model into a temporary file."""
    some = texts[:: max(1, -(-len(texts) // _MOST))]
    try:
        found = Counter(map(language_of, some))
    except OSError:
        return {}
    for code, count in list(found.items()):
        if code != UNKNOWN and count < max(2, len(some) / 100):
            del found[code]
            found[UNKNOWN] += count
    return dict(found.most_common())


def language_shares(counts: Mapping[str, int], total: int | None = None) -> str:
    """Return "German 82 %, English 10 %, not recognized 8 %", of ``total`` messages or of all."""
    of = total or sum(counts.values())
    return ", ".join(f"{_name(code)} {count / of:.0%}" for code, count in counts.items())


def foreign_languages(counts: Mapping[str, int], known: Sequence[str]) -> str:
    """Return the shares of the languages that a base does not know, empty if it knows all or does
    not say which. ``known`` are codes such as ``en`` or ``pt-BR``."""
    codes = {code.casefold().partition("-")[0] for code in known}
    if not codes or MULTILINGUAL in codes:
        return ""
    total = sum(counts.values())
    least = _LEAST_SHARE * total
    named = codes | {UNKNOWN}
    strange = {code: n for code, n in counts.items() if code not in named and n >= least}
    return language_shares(strange, total)


def language_names(codes: Sequence[str]) -> str:
    """Return the languages' names, "English and German"."""
    names = [_name(code) for code in codes]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _name(code: str) -> str:
    return _NAMES.get(code.casefold().partition("-")[0], code)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
