"""Where it is written which adapter serves in an arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.contract import Manifest, read_manifest
from worker.contract.store import CanaryPointer, Pointer, find_stored, read_canary, read_pointer
from worker.contract.verify import attach_probes
from worker.core.arms import CANARY, MAIN, ArmRole


@dataclass(frozen=True, slots=True)
class ArmTarget:
    """The adapter that is named for an arm, and the arm's share of the traffic (0 to 1).

    ``compare``: it must do about as well as the main adapter on that one's own probes. ``pointer``
    is what named it, if that can change: written again it is another target, so that an adapter
    that was refused is tried again.
    """

    directory: Path
    digest: str
    name: str
    share: float
    compare: bool
    pointer: Pointer | CanaryPointer | None = None


@dataclass(frozen=True, slots=True)
class ArmSource:
    """Names the adapter of one arm.

    ``read`` returns None where none is named, and raises AdapterRefused where that cannot be told.
    A ``fixed`` name never changes: its adapter is brought up, or refused, once.
    """

    role: ArmRole
    read: Callable[[], ArmTarget | None]
    fixed: bool = False


def current_adapter(store: Path) -> ArmSource:
    """Return what names the main adapter: the store's current one.

    What a person forced, or rolled back to, is not compared with what serves.
    """

    def read() -> ArmTarget | None:
        pointer = read_pointer(store)
        if pointer is None:
            return None
        directory, compare = store / pointer.digest, is_compared(pointer)
        return ArmTarget(directory, pointer.digest, pointer.name, 1.0, compare, pointer)

    return ArmSource(MAIN, read)


def is_compared(pointer: Pointer) -> bool:
    """Whether what became current has to do about as well as what was current before."""
    return pointer.event not in {"force", "rollback"}


def adapter_before(store: Path, pointer: Pointer) -> Manifest | None:
    """Return the contract of the adapter that a worker compares the current one with when it
    starts: the one before it. None where there is nothing to compare.

    Raises AdapterRefused where that one cannot be read any more.
    """
    if pointer.previous is None or not is_compared(pointer):
        return None
    directory = store / pointer.previous
    return attach_probes(read_manifest(directory), directory)


def canary_adapter(store: Path) -> ArmSource:
    """Return what names the canary: the store's canary pointer."""

    def read() -> ArmTarget | None:
        pointer = read_canary(store)
        if pointer is None:
            return None
        return ArmTarget(
            store / pointer.digest,
            pointer.digest,
            pointer.name,
            pointer.share,
            compare=not pointer.forced,
            pointer=pointer,
        )

    return ArmSource(CANARY, read)


def named_adapter(role: ArmRole, store: Path | None, name: str, share: float) -> ArmSource:
    """Return what names one adapter for good: its directory, or the beginning of its digest in
    the store."""

    def read() -> ArmTarget:
        directory, digest, stored_name = find_stored(store, name)
        return ArmTarget(directory, digest, stored_name, share, compare=False)

    return ArmSource(role, read, fixed=True)
