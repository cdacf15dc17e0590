"""``classify --out --ray``: the parts of a plan, labelled by actors of a Ray cluster.

Ray's objects hold the names of parts and counts, never a message: each actor reads its rows, labels
them and writes the part itself. A killed actor is started again and does the parts that are
missing. (``map_batches`` over rows would put every text into the object store.)
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from worker.errors import SettingsError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported


@dataclass(frozen=True, slots=True)
class Actors:
    """How many, and what each takes of the cluster."""

    count: int
    cpus: float
    gpus: float


LabelParts = Callable[[Sequence[int]], Counter[str]]
"""Labels the parts with these places in the plan; returns how many rows have which outcome."""


class _Actor:
    def __init__(self, open_labelling: Callable[[], AbstractContextManager[LabelParts]]) -> None:
        self._open = ExitStack()  # until the actor's process ends
        self._label = self._open.enter_context(open_labelling())

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        counts = self._label([int(part) for part in item["parts"]])
        # With the parts, because results arrive in any order.
        return {**item, "outcomes": list(counts), "rows": list(counts.values())}


def on_ray(
    open_labelling: Callable[[], AbstractContextManager[LabelParts]],
    work: Sequence[Sequence[int]],
    actors: Actors,
) -> Iterator[tuple[list[int], Counter[str]]]:
    """Yield the parts and the counts of each item of ``work`` as it is done, on the cluster of
    RAY_ADDRESS or a local one.

    Raises SettingsError without Ray.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError:
        raise SettingsError("--ray needs the extra ray: pip install 'filing-clerk[ray]'") from None
    # A local cluster has no dashboard; one that is there has what its owner gave it.
    local = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    ray.init(logging_level="ERROR", log_to_driver=False, **local)
    logging.getLogger("ray.data").setLevel("ERROR")
    try:
        DataContext.get_current().enable_progress_bars = False
        items = ray.data.from_items(
            [{"parts": list(parts)} for parts in work], override_num_blocks=len(work)
        )
        done = items.map(
            _Actor,
            fn_constructor_args=(open_labelling,),
            compute=ActorPoolStrategy(size=min(actors.count, len(work))),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
        )
        for row in done.iter_rows():
            counts = dict(zip(row["outcomes"], map(int, row["rows"]), strict=True))
            yield [int(part) for part in row["parts"]], Counter(counts)
    finally:
        ray.shutdown()
