"""How this package calculates: in single precision, with tables made once, without waiting for the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


def single_precision(function: Callable[P, torch.Tensor]) -> Callable[P, torch.Tensor]:
    """Has a function calculate in single precision at least, whatever autocast says.

    Its tensors are made single where they are half; the result has the type of the first of them, rounded once.
    """

    @functools.wraps(function)
    def calculated(*args: P.args, **kwargs: P.kwargs) -> torch.Tensor:
        first = next(value for value in args if isinstance(value, torch.Tensor))
        with _without_autocast(first.device):
            return cast(Any, function)(*map(_single, args), **kwargs).to(first.dtype)

    return calculated


def _single(value: object) -> object:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast switched off, where a device has it."""
    try:
        return torch.autocast(device.type, enabled=False)
    except (RuntimeError, AssertionError):  # as PyTorch says that it has none, differently from version to version
        return nullcontext()


def table(function: Callable[P, Result]) -> Callable[P, Result]:
    """Keeps the tensors that a function makes for its arguments: they outlive the pass that asks for them first."""

    @functools.lru_cache(maxsize=64)
    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Result:
        with torch.inference_mode(mode=False):
            return function(*args, **kwargs)

    return cast("Callable[P, Result]", made)


def per_row(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """Numbers, one for each row of [B, C, H, W], to calculate with: [B, 1, 1, 1].

    Each is filled in on the device; copying them there would wait until it is done with all that it has to do.
    """
    return torch.stack([torch.full((1, 1, 1), value, dtype=torch.float32, device=device) for value in values])
