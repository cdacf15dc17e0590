"""A search for slow texts: hill climbing on CPU time a kilobyte, then a proof by doubling.

python -m tests.fuzz slow --minutes 10 [--seed 1] [--only NAME]

A text is a recipe, so that it can be made in any length: a beginning, one or more repeated units,
an end. Recipes are changed in small steps, at several lengths, and the slowest are kept and changed
again. Then the slowest are made twice, four and eight times as long: a function is slow if it takes
more than ``MOST_GROWTH`` times as long for twice the text, or more than its bound for a kilobyte.
The bound counts in ``calibration_s``, measured in the same run, so that it means the same on a slow
machine. Prints a table; exits with 1 if something is slow.
"""

from __future__ import annotations

import argparse
import ast
import gc
import inspect
import itertools
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType, ModuleType
from typing import Any

SIZES = (90, 290, 4_000, 16_000)
"""Lengths to search at, in characters: exponential growth shows at small ones, quadratic at
large."""

PROOF_SIZES = (16_000, 32_000, 64_000, 128_000)
MOST_GROWTH = 3.0
"""How many times as long twice the text may take: 2 is linear, 4 quadratic; the rest is for noise
and for memory that no longer fits a cache."""

_WORTH_COMPARING_S = 0.004
LONGEST_S = 2.0
_ENOUGH_S = 0.25
_SHARE_TO_SEARCH = 0.7
"""The share of the time for the search; the rest is for the proofs."""
_KEPT = 6

FRAGMENTS: Sequence[str] = [
    *("00 ", "0", "1", "7", "12", "123", "0170", "4111"),
    *("1234567", "+", "00", "01.02.", "1-1", "٣"),
    *("a", "A", "ab", "x.", "é", "ß", "İ", "ﬃ", "字", "𝒳"),
    *("e\u0301", "\u0301", "\u0323\u0301", "\u0344"),
    *("\u1112\u1161", "\ufb2c", "\u0f73", "\u200b"),
    *("\u200d", "\u202e", "\ufeff", "\x00", "\x7f", "\x85"),
    *(" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n"),
    *("\u00a0", "\u2003", "\u2028", "\u3000", "\u3164"),
    *("@", "a@", "a@b.", "@b.io", " (at) ", "[at]", "."),
    *("..", ",", ":", ";", "-", "--", "_", "/", "\\"),
    *("(", ")", "((", "[", "]", "{", "}", "<", ">", "> "),
    *("<a ", "</", "<!--", "&", "&#", "&amp;", "'"),
    *('"', '""', "’", "“", "*", "**", "#", "##", "|"),
    *("~", "=", "==", "!", "?", "%", "$", "€", "^", "`"),
    *('{"a":', '["', '":', '",', "\\u", "\\ud800", "\\n", "null,", "1e9", "0.", "9", "[[", "{}"),
    *("http://", "www.", ".com", "DE89", "GB82 WEST "),
    *("order ", "call ", "On ", "wrote:", "Hi ", "no. "),
    *("\U0001f468\u200d", "\U0001f1e9", "\ud800", "\udc00", "\ue000", "[mail]", "[name]", "word "),
]  # fmt: skip


SAMPLES: Sequence[str] = [
    "Hi, where is my order 48-1123? Call 0170 1234567 or +49 (0)170 123 45 67, a.b@example.com.",
    "IBAN DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111, 01.02.2024, 1.234,56 EUR, no. 1",
    "thanks\n\nKind regards,\nAnn\n--\nAnn Lee, Example Ltd, 020 7946 0958",
    "sent from my iphone 12 pro max",
    "von meinem Galaxy S23 ultra gesendet",
    "On Mon, 3 Jun 2024 at 10:12, Ann Lee <ann@example.com> wrote:\n> hello\n> there\nyes",
    "Am 03.06.2024 um 10:12 schrieb Ann Lee <ann@example.com>:",
    "Le lun. 3 juin 2024 à 10:12, Ann Lee <ann@example.com> a écrit :",
    "El lun, 3 jun 2024 a las 10:12, Ann (<ann@example.com>) escribió:",
    "Op ma 3 jun. 2024 om 10:12 schreef Ann <ann@example.com>:",
    "-----Original Message-----\nFrom: Ann <a@b.io>\nSent: Monday, 3 June 2024 10:12\nTo: B",
    '{"subject": "a", "message": "b \\ud83d\\ude4f \\n", "parts": [{"text": "x"}, 1e9, null]}',
    'id,message,label\r\n1,"He said ""no"", twice\nor so",billing\r\n',
    "<p>Hello&nbsp;<b>there</b> &#8364;5 <a href='http://example.com/a?b=c&d'>x</a><!-- y --></p>",
    "<div style='display: none'>a</div><table><td hidden>1<td>2</table><br />\n<pre>\nb</pre><li>c",
]
"""Texts as people and programs write them. A part of one is repeated and its end broken, since the
text that a pattern was made for leads farthest into it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A text of any length: its beginning, units over and over, and its end."""

    start: str
    units: tuple[str, ...]
    end: str

    def text(self, chars: int) -> str:
        """Return the text in so many characters, or in a few more."""
        each = max(1, (chars - len(self.start) - len(self.end)) // len(self.units))
        middle = ((unit * (each // len(unit) + 1))[:each] for unit in self.units)
        return self.start + "".join(middle) + self.end


@dataclass(slots=True)
class Found:
    """The slowest that was found of one function. ``s_per_kb`` is CPU time for 1,000 characters at
    ``chars``; ``growth`` how often as long it takes for twice the text, 0 where it took too little
    to be compared."""

    name: str
    s_per_kb: float = 0.0
    chars: int = 0
    growth: float = 0.0
    recipe: Recipe | None = None
    tried: int = 0
    slow: list[str] = field(default_factory=list)


class _TooLong(BaseException):
    """What stops a function that takes longer than anything may."""


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise _TooLong in what takes longer: pattern matching looks for signals while it works."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    # Raised while the collector calls back (Hypothesis listens), the exception would be lost.
    gc.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, before)


def cpu_s(run: Callable[[str], object], text: str, *, repeats: int = 1) -> float:
    """Return the least CPU time, in seconds, that ``run`` takes for a text; ``LONGEST_S`` where it
    was stopped. Of the thread: while a timer runs, that of the process is known to a tick only."""
    least = LONGEST_S
    for _ in range(repeats):
        if _ENOUGH_S < least < LONGEST_S:
            break
        begin = time.thread_time()
        try:
            with _stopped_after(LONGEST_S):
                run(text)
        except _TooLong:
            return LONGEST_S
        least = min(least, time.thread_time() - begin)
    return least


def steps(run: Callable[[str], object], text: str) -> int:
    """Return how many instructions of Python ``run`` executes for a text: the same on any machine.
    What C does is one of them."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run(text)
    finally:
        sys.settrace(before)
    return count


def calibration_s() -> float:
    """Return the CPU time, in seconds, of a loop in Python over 1,000 characters."""

    def loop(text: str) -> int:
        letters = 0
        for character in text:
            if character.isalpha():
                letters += 1
        return letters

    return cpu_s(loop, "ab 1" * 10_000, repeats=20) / 40


def words_of(modules: Sequence[ModuleType]) -> list[str]:
    """Return the words that stand in the modules' own strings, docstrings left out: what patterns
    look for."""
    found: set[str] = set()
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        strings = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
        docs = {node.value.value for node in statements if isinstance(node.value, ast.Constant)}
        for text in strings - docs:
            found.update(re.findall(r"[^\W\d_](?:[^\W\d_]| (?=[^\W\d_])){1,25}", text))
    return sorted(found)


class Climb:
    """The search for one function's slow texts at one length."""

    def __init__(
        self, run: Callable[[str], object], chars: int, words: Sequence[str], rng: random.Random
    ) -> None:
        self._run, self._chars, self._words, self._rng = run, chars, words, rng
        self.best: list[tuple[float, Recipe]] = []

    @property
    def is_done(self) -> bool:
        """Whether a text was found that had to be stopped: there is nothing slower."""
        return bool(self.best) and self.best[0][0] >= LONGEST_S

    def step(self) -> None:
        """Try one recipe, new or changed, and keep it where it is among the slowest."""
        rng = self._rng
        if not self.best or rng.random() < 0.25:
            recipe = self._made()
        else:
            recipe = self.best[min(int(rng.expovariate(0.7)), len(self.best) - 1)][1]
            for _ in range(rng.choice((1, 1, 2, 3))):
                recipe = self._changed(recipe)
        text = recipe.text(self._chars)
        spent = cpu_s(self._run, text)
        if len(self.best) < _KEPT or spent > self.best[-1][0]:
            spent = min(spent, cpu_s(self._run, text, repeats=2)) if spent < LONGEST_S else spent
            kept = {**{other: s for s, other in self.best}, recipe: spent}
            ranked = sorted(kept.items(), key=lambda each: -each[1])[:_KEPT]
            self.best = [(s, each) for each, s in ranked]

    def _fragment(self) -> str:
        if self._words and self._rng.random() < 0.3:
            return self._rng.choice(self._words) + self._rng.choice(("", "", " ", ":"))
        return self._rng.choice(FRAGMENTS)

    def _fragments(self, least: int, most: int) -> str:
        return "".join(self._fragment() for _ in range(self._rng.randint(least, most)))

    def _made(self) -> Recipe:
        rng = self._rng
        if rng.random() < 0.4:
            sample = rng.choice(SAMPLES)
            first, last = sorted(rng.sample(range(len(sample) + 1), 2))
            last = min(last, first + rng.choice((1, 2, 3, 4, 8, 40)))
            end = rng.choice(("", sample[last:])) + rng.choice(("", self._fragment()))
            return Recipe(sample[:first], (sample[first:last],), end)
        units = tuple(self._fragments(1, 3) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        start = self._fragments(1, 2) if rng.random() < 0.5 else ""
        return Recipe(start, units, self._fragments(1, 2) if rng.random() < 0.5 else "")

    def _changed(self, recipe: Recipe) -> Recipe:
        rng, kind = self._rng, self._rng.randrange(8)
        if kind == 0:
            return replace(recipe, start=self._fragments(0, 2))
        if kind == 1:
            return replace(recipe, end=self._fragments(0, 2))
        units = list(recipe.units)
        at = rng.randrange(len(units))
        if kind == 2 and len(units) < 4:
            units.insert(at, self._fragments(1, 3))
        elif kind == 3 and len(units) > 1:
            del units[at]
        else:
            units[at] = self._changed_unit(units[at])
        return replace(recipe, units=tuple(units))

    def _changed_unit(self, unit: str) -> str:
        rng = self._rng
        place = rng.randrange(len(unit) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            unit = unit[:place] + unit[place + 1 :]
        elif kind == 1:
            unit = unit[:place] + self._fragment() + unit[place:]
        elif kind == 2:
            unit = unit[:place] + self._fragment() + unit[place + 1 :]
        else:
            unit += unit[:place]
        return unit[:60] or self._fragment()


def growth(run: Callable[[str], object], recipe: Recipe, sizes: Sequence[int]) -> float:
    """Return how often as long ``run`` takes for twice the text: over the sizes, each twice the one
    before, the mean or the last, whichever is more; of three such figures the least where the first
    is too much, for a machine that is busy adds to some of the times. 0 where it takes too little
    to be compared."""
    least = _growth(run, recipe, sizes)
    for _ in range(2):
        if least > MOST_GROWTH:
            least = min(least, _growth(run, recipe, sizes))
    return least


def _growth(run: Callable[[str], object], recipe: Recipe, sizes: Sequence[int]) -> float:
    times: list[float] = []
    for chars in sizes:
        spent = cpu_s(run, recipe.text(chars), repeats=3)
        if spent >= _WORTH_COMPARING_S:
            times.append(spent)
        if spent >= _ENOUGH_S:
            break
    if len(times) < 2:
        return 0.0
    return float(max((times[-1] / times[0]) ** (1 / (len(times) - 1)), times[-1] / times[-2]))


def search(
    name: str,
    run: Callable[[str], object],
    words: Sequence[str],
    most_s_per_kb: float,
    *,
    rng: random.Random,
    more: Callable[[int], bool],
    sizes: Sequence[int] = SIZES,
    proof_sizes: Sequence[int] = PROOF_SIZES,
) -> Found:
    """Look for texts that ``run`` is slow for while ``more``, told how many were tried, is true."""
    climbs = [Climb(run, chars, words, rng) for chars in sizes]
    found = Found(name)
    for climb in itertools.cycle(climbs):
        if not more(found.tried):
            break
        if not climb.is_done:
            climb.step()
        found.tried += 1
    for climb, chars in zip(climbs, sizes, strict=True):
        for spent, recipe in climb.best[:2]:
            if spent >= LONGEST_S:
                found.s_per_kb, found.chars, found.recipe = spent, chars, recipe
                found.slow.append(f"stopped after {spent:.0f} s at {chars} characters: {recipe!r}")
                break
            again = min(spent, cpu_s(run, recipe.text(chars), repeats=3))
            s_per_kb = again / max(chars, 1_000) * 1_000
            grown = growth(run, recipe, proof_sizes)
            if s_per_kb > found.s_per_kb or (grown > MOST_GROWTH > found.growth):
                found.s_per_kb, found.chars, found.recipe = s_per_kb, chars, recipe
            found.growth = max(found.growth, grown)
            if grown > MOST_GROWTH:
                found.slow.append(f"{grown:.1f} times as long for twice the text: {recipe!r}")
            if s_per_kb > most_s_per_kb:
                found.slow.append(f"{s_per_kb:.4f} s for 1,000 characters: {recipe!r}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Search all functions, or one; print the table; return the exit code."""
    from tests.fuzz.texts import ENTRIES

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz slow")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(ENTRIES))
    given = parser.parse_args(arguments)
    chosen = {name: one for name, one in ENTRIES.items() if given.only in {None, name}}
    unit = calibration_s()
    print(f"calibration: {unit * 1e6:.0f} µs for 1,000 characters; seed {given.seed}")
    print(f"{'function':46} {'tried':>6} {'ms/kB':>8} {'bound':>8} {'growth':>7}  slowest")
    slow = []
    for name, entry in chosen.items():
        entry.run("one-time work is done now")
        end = time.monotonic() + given.minutes * 60 / len(chosen) * _SHARE_TO_SEARCH
        found = search(
            name,
            entry.run,
            words_of(entry.modules),
            entry.most * unit,
            rng=random.Random(f"{given.seed} {name}"),
            more=lambda _, end=end: time.monotonic() < end,  # type: ignore[misc]
        )
        slow += [(name, why) for why in found.slow]
        print(
            f"{name:46} {found.tried:6} {found.s_per_kb * 1e3:8.3f} {entry.most * unit * 1e3:8.3f} "
            f"{found.growth:7.2f}  {found.chars}: {ascii(found.recipe)[7:90]}",
            flush=True,
        )
    for name, why in slow:
        print(f"slow: {name}: {why!a}")
    return 1 if slow else 0
