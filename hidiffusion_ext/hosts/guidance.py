"""Noise-damped guidance where the host combines conditional and unconditional evaluations.

The Forge family has a place for that (`guidance_forge`). A1111's denoiser evaluates the model on rows (conditions
first, then one unconditional row per picture), in one call or in several, and hands all results to its method
`combine_denoised` (or `combine_denoised_for_edit_model` for InstructPix2Pix). The calls are noted, the last rows of
them evaluated once more, and the results shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn

from ..core import Run
from ..core.damped_guidance import damp
from .guidance_forge import damped_results
from .model import forge_patcher


def damped_guidance(sampler: Any, run: Run) -> AbstractContextManager[None]:
    """Damps the guidance of the sampler's current pass in the steps in which the run wants it.

    Without guidance (CFG scale 1, or the host leaves out the unconditional evaluation) there is nothing to damp and
    no further evaluation.

    Args:
        sampler: The job's sampler; `model_wrap_cfg` is its denoiser, `model_wrap` the model that one evaluates.
        run: The pass, whose context is open.
    """
    evaluated = getattr(sampler.model_wrap_cfg, "inner_model", None)
    patcher = forge_patcher(getattr(evaluated, "inner_model", None))
    return damped_rows(sampler, run) if patcher is None else damped_results(patcher.model_options, run)


@contextmanager
def damped_rows(sampler: Any, run: Run) -> Generator[None, None, None]:
    """`damped_guidance` on A1111."""
    model: nn.Module = sampler.model_wrap
    calls: list[tuple[Any, ...]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not run.is_base:
            calls.append((args, kwargs))

    def damped(rows: torch.Tensor, pictures: list[int], count: int) -> torch.Tensor:
        with run.base_evaluation():
            return damp(rows, pictures, _evaluate_last(model, calls, count))

    def combine(original: Callable[..., Any], rows: torch.Tensor, conds_list: Any, uncond: Any, scale: float) -> Any:
        if run.damped and scale != 1:
            count = len(conds_list)
            pictures = [*(picture for picture, conds in enumerate(conds_list) for _ in conds), *range(count)]
            rows = damped(rows, pictures, count)
        calls.clear()
        return original(rows, conds_list, uncond, scale)

    def combine_for_edit_model(original: Callable[..., Any], rows: torch.Tensor, scale: float) -> Any:
        if run.damped:
            count = len(rows) // 3
            rows = damped(rows, [*range(count)] * 3, count)
        calls.clear()
        return original(rows, scale)

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(note, with_kwargs=True).remove)
        _wrap(stack, sampler.model_wrap_cfg, "combine_denoised", combine)
        if hasattr(sampler.model_wrap_cfg, "combine_denoised_for_edit_model"):
            _wrap(stack, sampler.model_wrap_cfg, "combine_denoised_for_edit_model", combine_for_edit_model)
        yield


def _evaluate_last(model: nn.Module, calls: list[tuple[Any, ...]], count: int) -> torch.Tensor:
    """The model's result [count, ...] for the last `count` rows of its noted calls."""
    results: list[torch.Tensor] = []
    for args, kwargs in reversed(calls):
        taken = min(count, len(args[0]))
        results.insert(0, model(*_last_rows(args, taken), **_last_rows(kwargs, taken)))
        count -= taken
        if count == 0:
            break
    return torch.cat(results)


def _last_rows(value: Any, count: int) -> Any:
    """The last rows of every tensor in nested arguments."""
    if isinstance(value, torch.Tensor):
        return value[-count:]
    if isinstance(value, Mapping):
        return {key: _last_rows(item, count) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_last_rows(item, count) for item in cast("list[Any]", value))
    return value


def _wrap(stack: ExitStack, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Puts `wrapper(original, ...)` in the place of a method of this one object."""
    own = vars(owner).get(name)
    original = getattr(owner, name)

    def call(*args: Any) -> Any:
        return wrapper(original, *args)

    def restore() -> None:
        if own is None:
            vars(owner).pop(name)
        else:
            setattr(owner, name, own)

    setattr(owner, name, call)
    stack.callback(restore)
