"""The public context manager: patches a UNet for one sampling pass and leaves it exactly as it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import patching
from .control import fit_residuals
from .plan import Plan
from .run import Run


@contextmanager
def hidiffusion(unet: nn.Module, plan: Plan, run: Run) -> Generator[None, None, None]:
    """Patches `unet` as planned while the context is open.

    After it has closed, normally or by any exception, every module has the same type, attributes and hooks as
    before. A plan with nothing to do registers no hook at all.

    Args:
        unet: The UNet that `plan.unet` is the map of.
        plan: What to do.
        run: The state of this pass; one per pass.

    Raises:
        ValueError: if the plan draws random shifts and the run has no generator.
    """
    due = plan.with_parts(part for part in plan.parts if part.due(run.schedule))
    with ExitStack() as stack:
        if due.parts:
            _watch_calls(stack, unet, due, run)
            _size_upsamplers(stack, unet, due, run)
        for part in due.parts:
            part.put_in_place(stack, unet, due, run)
        stack.callback(setattr, run, "at_work", run.at_work)
        run.at_work = due.parts
        yield


def _watch_calls(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
    """Sets the run's state from the size and timesteps of each UNet call, and fits ControlNet's residuals to it."""

    def watch(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        x, timesteps = args[0], args[1] if len(args) > 1 else kwargs["timesteps"]
        planned = tuple(x.shape[2:]) == plan.latent
        shown = [value for value in (*args[2:], *kwargs.values()) if isinstance(value, torch.Tensor)]
        run.read(x, timesteps, [value for value in shown if value is not timesteps], planned=planned)
        run.done.note_call(run.timestep, planned=planned)
        run.sizes = plan.sizes(lambda span: run.schedule.inside(span, run.timestep)) if planned else None
        if run.sizes is None or not run.sizes.changed or not kwargs.get("control"):
            return None
        return args, {**kwargs, "control": fit_residuals(kwargs["control"], run.sizes, plan.unet.seamless)}

    patching.before_forward(stack, unet, watch)


def _size_upsamplers(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
    """Where sizes are others every upsampler goes straight to the size of the skip its output will meet (nearest).

    The host has already doubled it; nearest doubling followed by nearest resizing is nearest resizing at once.
    """
    if not any(plan.sizes(inside).changed for inside in plan.phases(run.schedule)):
        return

    def sized(index: int, x: torch.Tensor) -> torch.Tensor:
        if run.sizes is None or not run.sizes.changed:
            return x
        size = run.sizes.skips[plan.unet.partner(index + 1)]
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")

    for index, block in enumerate(plan.unet.outputs):
        if block.up:
            patching.change_input(stack, unet.get_submodule(block.up), lambda x, index=index: sized(index, x))
