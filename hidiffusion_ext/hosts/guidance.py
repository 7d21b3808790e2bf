"""Changes what guidance results in, where the host combines conditional and unconditional evaluations.

The Forge family has a place for that (`guidance_forge`). A1111's denoiser evaluates the model on rows (conditions
first, then one unconditional row per picture), in one call or in several, and hands all results to its method
`combine_denoised` (or `combine_denoised_for_edit_model` for InstructPix2Pix). The calls are noted, so that their last
rows can be evaluated once more, and the combined result is changed. Other extensions are handed the same model, and
evaluate it as well (self-attention guidance and its kin): only the calls of the denoiser itself count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from ..core import Change, Evaluation, Run
from .fallback import Attempt
from .guidance_forge import changed_results
from .model import forge_patcher
from .wrapping import wrap_method


def changed_guidance(
    sampler: Any, run: Run, changes: Sequence[Change], attempt: Attempt
) -> AbstractContextManager[None]:
    """Puts changes around every evaluation with guidance of the sampler's current pass.

    Without guidance (CFG scale 1, or the host leaves out the unconditional evaluation) they are not asked.

    Args:
        sampler: The job's sampler; `model_wrap_cfg` is its denoiser and that one's `inner_model` what it evaluates.
        run: The pass.
        changes: What to do, one after the other; with none of them nothing is touched.
        attempt: Carries them out.
    """
    if not changes:
        return nullcontext()

    def change(evaluation: Evaluation) -> torch.Tensor:
        for one in changes:
            evaluation = replace(evaluation, guided=one(evaluation))
        return evaluation.guided

    model = sampler.model_wrap_cfg.inner_model
    patcher = forge_patcher(getattr(model, "inner_model", None))
    if patcher is None:
        return _changed_combinations(sampler.model_wrap_cfg, run, change, attempt)
    return changed_results(patcher.model_options, change, attempt)


@contextmanager
def _changed_combinations(denoiser: Any, run: Run, change: Change, attempt: Attempt) -> Generator[None, None, None]:
    """`changed_guidance` on A1111."""
    model: nn.Module = denoiser.inner_model
    calls: list[tuple[Any, ...]] = []
    put_back = run.mark()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        nonlocal put_back
        if _is_called_by(denoiser):
            calls.append((args, kwargs))
            put_back = run.mark()

    def changed(guided: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        def make() -> torch.Tensor:
            put_back()
            count = len(guided)
            return change(Evaluation(guided, rows[-count:], lambda: _evaluate_last(model, calls, count)))

        return attempt(make, guided) if calls else guided

    def combine(original: Callable[..., Any], rows: torch.Tensor, conds_list: Any, uncond: Any, scale: float) -> Any:
        guided = original(rows, conds_list, uncond, scale)
        guided = guided if scale == 1 else changed(guided, rows)
        calls.clear()
        return guided

    def combine_for_edit_model(original: Callable[..., Any], rows: torch.Tensor, scale: float) -> Any:
        guided = changed(original(rows, scale), rows)
        calls.clear()
        return guided

    with ExitStack() as stack:
        stack.callback(model.register_forward_hook(note, with_kwargs=True).remove)
        wrap_method(stack, denoiser, "combine_denoised", combine)
        if hasattr(denoiser, "combine_denoised_for_edit_model"):
            wrap_method(stack, denoiser, "combine_denoised_for_edit_model", combine_for_edit_model)
        yield


def _is_called_by(owner: Any) -> bool:
    """Whether the module whose hook asks this is called by a method of an object."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back and frame.f_code.co_filename == nn.modules.module.__file__:
        frame = frame.f_back
    return frame.f_locals.get("self") is owner


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
