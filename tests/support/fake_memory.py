"""How many bytes a piece of PyTorch code holds at its peak, counted without allocating any.

Tensors are PyTorch's fake ones: they have shapes, types and lifetimes, and no memory. Not counted:
an allocator's rounding and a kernel's own workspaces.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of ``held``, which exists before, and of all storages created inside; and
    the maximum at any moment."""

    def __init__(self, held: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()
        for tensor in held:
            self._count(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self._count(one.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def on_device(module: torch.nn.Module, device: str) -> None:
    """Put fake weights in place of a module's own, which are on PyTorch's "meta" device. Call it
    inside a ``FakeTensorMode``."""
    for part in module.modules():
        for name, weights in list(part._parameters.items()):
            if weights is not None:
                fake = torch.empty(weights.shape, dtype=weights.dtype, device=device)
                part._parameters[name] = torch.nn.Parameter(fake, weights.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
