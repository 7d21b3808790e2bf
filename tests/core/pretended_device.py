"""A device that is not there: its tensors are the CPU's and say otherwise, and what a program waits for is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""The one that every build of PyTorch knows and that computes nothing: here what is made for it is computed."""

READS = {"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero"}
"""What gives a program numbers of a tensor, or sizes that depend on them."""


class Pretended(torch.Tensor):
    """A tensor on the pretended device."""

    inside: torch.Tensor

    @staticmethod
    def of(inside: torch.Tensor, kind: type[torch.Tensor] = torch.Tensor) -> torch.Tensor:
        """What is computed with on the CPU, as a tensor of the device; of another subclass as well."""
        bases = (Pretended,) if kind is torch.Tensor else (kind, Pretended)
        made = torch.Tensor._make_wrapper_subclass(
            bases[0] if len(bases) == 1 else type(kind.__name__, bases, {}),
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=DEVICE,
        )
        made.inside = inside
        return made

    def as_subclass(self, kind: type[torch.Tensor]) -> torch.Tensor:
        return Pretended.of(self.inside, kind)

    def tolist(self) -> Any:
        return self.cpu().tolist()  # as PyTorch does it itself

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the device's context")


class PretendedDevice(TorchDispatchMode):
    """While open, there is the device.

    Attributes:
        waits: How often a program waited for it, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def put(self, x: torch.Tensor) -> torch.Tensor:
        """A CPU's tensor on the device."""
        return Pretended.of(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        given = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
        is_there, name = bool(given), func._schema.name
        if kwargs.get("device") is not None:
            is_there = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        if name == "aten::copy_":
            is_copy = isinstance(args[0], Pretended) != isinstance(args[1], Pretended)
        else:
            is_copy = bool(tensors) and is_there != bool(given)
        if is_copy or (name in READS and given):
            self.waits[name] += 1
        found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))

        def outside(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not is_there:
                return value
            same = [tensor for tensor in given if tensor.inside is value]
            return same[0] if same else Pretended.of(value)

        return tree_map(outside, found)


def _inside(value: Any) -> Any:
    return value.inside if isinstance(value, Pretended) else value
