"""What is known of one partition's part in the engine's deaths, and what its notes say of it."""

from __future__ import annotations

from collections.abc import Iterable

from worker.core.offset_note import OffsetNote, Ranges, read_note, to_ranges, without

LONE_DEATHS = 2
"""A record that has killed the engine so often, with nothing else in it, is put aside."""

UNPROVEN = 3
"""After so many in a row, with no answer to anything in between, it is the engine that is broken
and no record is to blame."""


class Suspicion:
    """One partition's, for as long as it is assigned. ``committed`` is its committed offset.

    ``group`` are those of its records that are being tried; ``alone`` says that nothing else is.
    Without a ``process`` nothing is suspected and nothing noted.
    """

    def __init__(self, process: str | None, committed: int, note: OffsetNote) -> None:
        self.committed = committed
        self.deaths = note.deaths
        self.lone_deaths = note.lone_deaths
        self.condemned = dict(note.condemned)
        self.unproven = note.unproven
        self.group: set[int] = set()
        self.alone = False
        self.released = 0
        """Records that were condemned until the engine itself was found to be broken."""
        self._process = process
        self._suspects: Ranges = note.suspects
        self._answered: set[int] = set()
        self._all_fetched = False
        self._open = OffsetNote(opened_by=process).encode(0) if process else ""

    @classmethod
    def read(cls, text: str, committed: int, window: range, process: str) -> Suspicion:
        """Take a partition over, with the note that its last owner left.

        Left open, that owner died: by one of the records that its engine may have had. Where the
        note names none these are those in ``window``. What this very ``process`` had open it lost
        without dying.
        """
        note = read_note(text, committed)
        suspicion = cls(process, committed, note)
        if note.opened_by in (None, process):
            return suspicion
        if note.group is not None:
            suspicion.blame(note.group, tried=True, alone=note.alone)
        else:
            suspicion.blame((window,), tried=False, alone=False)
        return suspicion

    @property
    def clear(self) -> bool:
        """Whether no record of the partition is special."""
        return not self._suspects and not self.condemned

    @property
    def noted(self) -> bool:
        """Whether this partition's offsets are committed with notes."""
        return self._process is not None

    @property
    def left(self) -> int:
        """How many offsets are suspect and not acquitted, records or not."""
        return max(0, sum(len(each) for each in self._suspects) - len(self._answered))

    def suspects(self, offset: int) -> bool:
        """Tell whether the record at ``offset`` is suspect. Ask for each in order."""
        if self._suspects and offset >= self._suspects[-1].stop - 1:
            self._all_fetched = True
        return offset not in self.condemned and any(offset in each for each in self._suspects)

    def blame(self, ranges: Ranges, *, tried: bool, alone: bool) -> None:
        """The engine died with these: from now on they are the suspects, and no others.

        ``tried``: in a trial of suspects; otherwise the search begins anew.
        """
        ranges = tuple(each for each in ranges if each)
        self.deaths = self.deaths + 1 if tried else 1
        self.lone_deaths = (self.lone_deaths if tried else 0) + 1 if alone else 0
        self.group.clear()
        self._answered.clear()
        self._all_fetched = False
        self._suspects = ranges
        if not ranges:
            self._clear()
        elif self.lone_deaths >= LONE_DEATHS:
            self.condemned[ranges[0].start] = self.deaths
            self._clear()
            if len(self.condemned) + self.unproven >= UNPROVEN:
                self.released = len(self.condemned)
                self.condemned.clear()

    def answer(self, offset: int) -> bool:
        """A suspect was answered; tell whether it was the last."""
        self.group.discard(offset)
        self._answered.add(offset)
        return bool(self._suspects)

    def acquit(self) -> None:
        """No suspect is left to try: what is left of them is not in the log."""
        if self._all_fetched:
            self._clear()

    def commit(self, offset: int) -> None:
        """The partition's offset was committed: what lies before it is done."""
        self.committed = offset
        if self.condemned:
            self.condemned = {at: deaths for at, deaths in self.condemned.items() if at >= offset}
        if self._suspects and offset >= self._suspects[-1].stop:
            self._clear()

    def note(self, offset: int, *, closing: bool = False) -> str:
        """What to commit beside ``offset``, now or when the partition is let go."""
        if self.clear and not self.unproven:
            return "" if closing else self._open
        suspects = without(self._suspects, offset, self._answered)
        group = to_ranges(at for at in self.group if at >= offset)
        # Until they are tried, nothing else of this partition is given to the engine.
        closed = closing or (bool(suspects) and not group)
        return OffsetNote(
            opened_by=None if closed else self._process,
            group=group if group and not closed else None,
            alone=self.alone and bool(group) and not closed,
            deaths=self.deaths if suspects else 0,
            lone_deaths=self.lone_deaths if suspects else 0,
            suspects=suspects,
            condemned=tuple((at, deaths) for at, deaths in self.condemned.items() if at >= offset),
            unproven=self.unproven,
        ).encode(offset)

    def begin_trial(self, offsets: Iterable[int], *, alone: bool) -> None:
        """The engine is about to be given these, and nothing else but what other partitions add."""
        self.group = set(offsets)
        self.alone = alone

    def _clear(self) -> None:
        self._suspects = ()
        self._answered.clear()
        self._all_fetched = False
        self.deaths = self.lone_deaths = 0
