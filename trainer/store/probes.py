"""Which messages go into a store with an adapter, for workers to try it on: somebody's choice."""

from __future__ import annotations

import grp
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.artifacts.evaluation import PROBES_NAME
from trainer.errors import BadInput
from worker.contract import AdapterRefused, Manifest
from worker.contract.verify import ProbeFile, probes_path, read_probes, write_probes

ProbeChoice = Literal["written", "validation", "off"]


@dataclass(frozen=True, slots=True)
class PlannedProbes:
    """The choice, and the file it comes to: None with ``off``."""

    choice: ProbeChoice
    file: ProbeFile | None

    @property
    def count(self) -> int:
        """How many messages it is."""
        return len(self.file.probes) if self.file else 0


def plan_probes(
    adapter: Path,
    manifest: Manifest,
    evaluation: Path,
    choice: ProbeChoice | None,
    standing: ProbeFile | None = None,
) -> PlannedProbes:
    """Return what goes into a store. Without a choice it is what the store has for this adapter
    already (``standing``), or what somebody wrote, where the evaluation has such messages, and
    nothing else: words of customers only go when asked for.

    Raises BadInput where what was chosen is not there; AdapterRefused where a file is damaged.
    """
    if choice == "off":
        return PlannedProbes("off", None)
    if choice is None and standing is not None:
        return PlannedProbes(standing.source, standing)
    beside = read_probes(probes_path(adapter), manifest)
    if choice == "validation":
        if beside is None or beside.source != "validation":
            raise BadInput(
                f"--probes validation: {probes_path(adapter)} has none: train with "
                "probes_per_label above 0, or choose --probes written or off"
            )
        return PlannedProbes("validation", beside)
    written = read_probes(evaluation / PROBES_NAME, manifest)
    if written is None and beside is not None and beside.source == "written":
        written = beside  # an adapter that comes from another store
    if written is not None and written.probes:
        return PlannedProbes("written", written)
    if choice == "written":
        raise BadInput(
            f"--probes written: {evaluation / PROBES_NAME} has none: run clerk-trainer evaluate "
            "--probes FILE with messages that somebody wrote, or choose --probes validation or off"
        )
    return PlannedProbes("off", None)


def standing_probes(store: Path, manifest: Manifest) -> ProbeFile | None:
    """Return the probes that a store has for an adapter; damaged ones, which a publication
    replaces, are none."""
    try:
        return read_probes(probes_path(store / manifest.digest), manifest)
    except AdapterRefused:
        return None


def place_probes(store: Path, digest: str, planned: PlannedProbes) -> None:
    """Write the probes beside a stored adapter, or remove those that are there. They are for the
    owner and the group of the store's folder. Raises OSError."""
    path = probes_path(store / digest)
    if planned.file is None:
        path.unlink(missing_ok=True)
        return
    write_probes(path, planned.file)
    # Workers run in the group of the store's folder. Where this user may not give the file to it,
    # it keeps the publisher's group, and ``describe`` says which.
    with suppress(PermissionError):
        os.chown(path, -1, store.stat().st_gid)


def describe(store: Path, digest: str, planned: PlannedProbes) -> str:
    """Say in plain words whose messages are in the store now, and who may read them."""
    if planned.choice == "off":
        return (
            "probes: off. The store holds no message, and workers start this adapter without "
            "trying it on any (clerk-trainer evaluate --probes FILE, with messages that somebody "
            "wrote, gives it some)"
        )
    whose = {
        "written": "messages that somebody wrote for this",
        "validation": "MESSAGES OF CUSTOMERS, from the validation set,",
    }[planned.choice]
    path = probes_path(store / digest)
    readers = "its owner and its group"
    if path.exists():
        readers += f" {_group_name(path.stat().st_gid)}, which has to be the workers'"
    return f"probes: {planned.count} {whose} as text in {path}, for {readers}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
