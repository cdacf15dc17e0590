"""A progress bar on standard error while topics are read, where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.offline.input_range import Offsets
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_scan import TopicScanner

_EVERY = 1000


class ScanProgress:
    """Shows how far each topic has been read; a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]:,} records"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def read(self, scanner: TopicScanner, topic: str, ranges: Offsets) -> Iterator[Record]:
        """Yield the records of these ranges of ``topic``."""
        total = sum(max(0, stop - start) for start, stop in ranges.values())
        task = self._progress.add_task(topic, total=total, records=0)
        reached: dict[TopicPartition, int] = {}
        count = 0
        for count, record in enumerate(scanner.records(ranges), 1):
            reached[record.source] = record.offset + 1 - ranges[record.source][0]
            if count % _EVERY == 0:
                self._progress.update(task, completed=sum(reached.values()), records=count)
            yield record
        self._progress.update(task, completed=total, records=count)
