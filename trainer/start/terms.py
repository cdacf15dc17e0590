"""The taxonomy that ``start`` writes: the labels found, each described by its typical words.

The file ends up in every adapter's manifest, so no customer's sentence and no personal data may be
in it. A term is therefore one or two words that occur in several different messages of its label.
Left out are quotations and signatures, everything with a digit, an address or a link, and words
that are used as a name: after a greeting, a title or closing words, or with a capital inside a
sentence where the language gives none to its nouns.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

from trainer.dataset.clean import strip_quotes, strip_signature
from worker.contract.redact import redact_personal_data
from worker.contract.taxonomy import label_name
from worker.contract.text import normalize

LEAST_MESSAGES = 3
"""Different messages of a label in which a term must occur."""

_LEAST_SHARE = 0.03
_MOST_TERMS = 6
_SHOWN_Z = 2.0  # about 1 in 40 words passes by chance, and only the best six are shown
_LEAST_LIFT = 2.5  # how much more frequent than elsewhere
_TYPICAL_Z = 1.0  # both words of a pair
_NAME_SHARE = 0.2
_CAPITAL_NOUNS = 0.25  # share of capitals inside sentences: English 0.05, German 0.35

_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ENDS = re.compile(r"[.!?:;…]+$|\n")
# Scripts without blanks between words: what looks like a word may be a whole sentence. Of Chinese,
# Japanese and Korean two characters are a term; Thai, Lao, Khmer and Burmese give none.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_SHORTEST, _LONGEST = 3, 25
_WORD = re.compile(r"\S+")

_BEFORE_NAMES = frozenset(
    _WORD.findall("""
    hi hello hey dear mr mrs ms miss dr sir madam regards sincerely cheers thanks
    yours name herr frau hallo liebe lieber liebes guten tag servus moin gruß gruss grüße
    gruesse mfg bonjour monsieur madame cher chère cordialement hola señor señora don doña
    estimado estimada saludos atentamente ciao salve gentile signor signora saluti cordiali
    beste geachte meneer mevrouw groeten hej kære hälsningar mvh pan pani drogi pozdrawiam
    olá senhor senhora
""")
)

# Small data lets some of the commonest words through. A word of another language that is missing
# here does no harm: the file is for a person to edit.
_FUNCTION_WORDS = frozenset(
    _WORD.findall("""
    about after again all also and any anything are aren't but can can't come could did
    didn't does doesn't doing don't for from get goes going gone got had has have her here
    him his how i'd i'm i've into isn't it's its just know let like made make makes many may
    mine more much must need not now off one ones our out please said same say says see she
    should some still than that that's the their them then there these they thing things
    this too two until use very want wants was wasn't way were what what's when where which
    who why will with won't would you your yours anyone anything everyone everything nothing
    someone something they're they've there's we're we've you're you've
    aber alle auch auf aus bei bin bitte das dass dem den der des die dies doch ein eine einen
    einer eines für habe haben hat ich
    ihr ist kann kein keine können mein meine mich mir mit nach nicht noch nur oder schon
    sehr sein seit sich sie sind und uns vom von war wenn werden wie wir wird zum zur
    avec ces cette comme dans depuis elle est être les leur mais mes mon nous par pas plus
    pour qui que sans ses son sur une vos votre vous como con del desde ella era esta este
    está hay las los más muy nos para pero por porque quiero sin sobre sus una usted che
    della delle hanno mio non per più sono sul aan dat deze een heb het hoe ik kan maar met
    mijn naar niet ook van voor waar wat zijn
""")
)


def typical_terms(rows: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return each label's most typical terms, the most typical first, from (message, label) rows.

    A term is ranked by the log-odds ratio of its share of the label's messages and its share of all
    others, with 1/2 added to every count (Haldane 1956), divided by its standard error.
    """
    by_label: dict[str, dict[str, list[_Run]]] = {}
    for message, label in rows:
        text = _own_words(message)
        by_label.setdefault(label, {}).setdefault(text.casefold(), list(_runs(text)))
    every = (run for texts in by_label.values() for runs in texts.values() for run in runs)
    left_out = _FUNCTION_WORDS | _BEFORE_NAMES | _used_as_names(every)
    counts = {
        label: Counter(term for runs in texts.values() for term in set(_terms(runs, left_out)))
        for label, texts in by_label.items()
    }
    sizes = {label: len(texts) for label, texts in by_label.items()}
    everywhere = sum(counts.values(), Counter())
    return {
        label: _choose(counts[label], sizes[label], everywhere, sum(sizes.values()))
        for label in by_label
    }


def _own_words(message: str) -> str:
    text = redact_personal_data(normalize(message))[0]
    return strip_signature(strip_quotes(text))


@dataclass(frozen=True, slots=True)
class _Run:
    """Words that follow each other in one sentence; ``first``: they begin it."""

    words: list[str]
    first: bool


def _runs(text: str) -> Iterator[_Run]:
    """Yield runs of words. A run ends with the sentence, and at anything that is not a word, such
    as a number, an address or a redaction mark."""
    words: list[str] = []
    first = begins = True
    for chunk in re.findall(r"\n|\S+", text):
        core = chunk.strip("\"'’‘“”„«»()*,.!?:;…-–—¿¡")
        is_word = _LETTERS.fullmatch(core) is not None and not _UNSPACED.search(core)
        ends = _ENDS.search(chunk) is not None
        if is_word:
            first = first if words else begins
            words.append(core)
        if words and (not is_word or ends or chunk.endswith(",")):
            yield _Run(words, first)
            words = []
        begins = ends or (begins and not core)
    if words:
        yield _Run(words, first)


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """Return the words, in lower case, that messages use as names."""
    runs = (run for text in texts for run in _runs(_own_words(text)))
    return _used_as_names(runs) - _FUNCTION_WORDS - _BEFORE_NAMES


def _used_as_names(runs: Iterable[_Run]) -> frozenset[str]:
    seen: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    addressed: Counter[str] = Counter()
    for run in runs:
        for at, word in enumerate(run.words):
            low = word.lower()
            seen[low] += 1
            # The surname follows the first name: two words after the greeting.
            addressed[low] += any(
                before.lower() in _BEFORE_NAMES for before in run.words[max(0, at - 2) : at]
            )
            if at or not run.first:
                inside[low] += 1
                capital[low] += word[0].isupper() and not word.isupper()
    nouns_have_capitals = sum(capital.values()) > _CAPITAL_NOUNS * sum(inside.values())
    return frozenset(
        word
        for word, count in seen.items()
        if addressed[word] > _NAME_SHARE * count
        or (not nouns_have_capitals and 2 * capital[word] > inside[word])
    )


def _terms(runs: Iterable[_Run], left_out: frozenset[str]) -> Iterator[str]:
    """Yield a message's words and pairs of neighbouring words, in lower case."""
    for run in runs:
        words = [word.lower() for word in run.words]
        for word, after in zip(words, [*words[1:], ""], strict=True):
            if parts := _CJK.findall(word):
                yield from (part[at : at + 2] for part in parts for at in range(len(part) - 1))
            elif _is_term(word, left_out):
                yield word
                if after and not _CJK.search(after) and _is_term(after, left_out):
                    yield f"{word} {after}"


def _is_term(word: str, left_out: frozenset[str]) -> bool:
    return _SHORTEST <= len(word) <= _LONGEST and word not in left_out


def _choose(
    counts: Mapping[str, int], size: int, everywhere: Mapping[str, int], total: int
) -> tuple[str, ...]:
    least = max(LEAST_MESSAGES, round(_LEAST_SHARE * size))
    scores = {
        term: _log_odds(count, size, everywhere[term] - count, total - size)
        for term, count in counts.items()
        if count >= least
        and count * (total - size) >= _LEAST_LIFT * size * (everywhere[term] - count)
    }
    chosen: list[str] = []
    for term in sorted(scores, key=lambda term: (-scores[term], term)):
        words = term.split()
        if scores[term] < _SHOWN_Z or len(chosen) == _MOST_TERMS:
            break
        if any(scores.get(word, 0.0) < _TYPICAL_Z for word in words):
            continue
        if not any(set(words) & set(other.split()) for other in chosen):
            chosen.append(term)
    return tuple(chosen)


def _log_odds(inside: int, of: int, outside: int, of_others: int) -> float:
    """Return the log-odds ratio of two shares, in standard errors."""
    cells = [inside + 0.5, of - inside + 0.5, outside + 0.5, of_others - outside + 0.5]
    ratio = log(cells[0] / cells[1]) - log(cells[2] / cells[3])
    return ratio / sqrt(sum(1 / cell for cell in cells))


_HEADER = """\
# The labels of {files}, {how}. {by} wrote this file.
# Edit it: a description says in one sentence what belongs to its label. Reviewers read it, and
# every model carries it. {then}

name = {name}
version = "1"
description = ""
"""


_BY_START = (
    "clerk-trainer start",
    "Then run the same command again: your version is kept.",
)

BY_TOPICS = (
    "clerk-trainer taxonomy suggest",
    "Rename, merge, add, or delete labels: they are only topics so far.",
)
"""Who wrote a file of topics, and what to do with it."""


def taxonomy_text(
    name: str,
    files: Sequence[str],
    terms: Mapping[str, Sequence[str]],
    known: Mapping[str, str] | None = None,
    origin: tuple[str, str] = _BY_START,
    how: str = "described as in their instruction, or by typical words",
) -> str:
    """Return a taxonomy file (TOML) with a label for each key of ``terms``, in that order.
    ``known`` are descriptions that stand instead of the words, and ``how`` says whose."""
    known = known or {}
    by, then = origin
    header = _HEADER.format(
        files=", ".join(map(_printable, files)),
        how=_printable(how) if known else "with words that are typical of each",
        name=_quoted(name),
        by=by,
        then=then,
    )
    parts = [header]
    for label, words in terms.items():
        described = known.get(label) or (f"Typical words: {', '.join(words)}." if words else "")
        parts.append(f"[[labels]]\nname = {_quoted(label)}\ndescription = {_quoted(described)}\n")
    return "\n".join(parts)


def without_labels(text: str, names: Collection[str]) -> str:
    """Return a taxonomy file without these labels, and the rest as it was written. Of labels that
    are not in tables of their own (``[[labels]]``), none is left out."""
    head, *tables = re.split(r"(?m)^(?=\[\[labels]])", text)
    named = {each: label_name(tomllib.loads(each)["labels"][0]["name"]) for each in tables}
    return "".join((head, *(each for each in tables if named[each] not in names)))


def name_of(stem: str) -> str:
    """Return a taxonomy's name from a file's: words and dashes, such as "tickets-2026"."""
    return "-".join(re.findall(r"[^\W_]+", stem.casefold())) or "messages"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for the character DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _printable(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name)
