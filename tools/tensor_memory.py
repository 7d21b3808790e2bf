"""Counts the memory that tensors take, exactly and on any machine: what the system reports depends on its allocator."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class TensorMemory(TorchDispatchMode):
    """While open, follows every tensor that an operation makes, for as long as it is there.

    What kernels take for themselves is not counted.

    Attributes:
        peak: The most bytes there were at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._alive[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata).atexit = False
        self.peak = max(self.peak, self._now)
        return result

    def _forget(self, storage: int) -> None:
        self._now -= self._alive.pop(storage)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]
