"""What the patching itself costs: no arithmetic, only Python and the dispatch of small operations."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from hidiffusion_ext.core import Options, make_plan, map_unet
from ldm_unet import Shape, ldm_unet

from .subjects import carried_out

NARROW = 32
"""Channels of the finest level; group norms need as many."""

CELLS = 8
"""The latent's side: twice the native side that is claimed."""

STEPS = 50


@torch.inference_mode()
def overhead(shape: Shape, repeats: int = 100) -> dict[str, float]:
    """Median microseconds for mapping, planning, patching and restoring, and for the hooks of one call.

    The UNet has all of the shape's blocks, but is so narrow and its latent so small that arithmetic takes next to no
    time: that of the hooks is what a pass's first call spends in them, with the copies they make.
    """
    unet = ldm_unet(_narrow(shape))
    options, latent = Options(native_size=CELLS * 8 // 2), (CELLS, CELLS)
    timesteps = [999 - 999 * step / STEPS for step in range(STEPS)]
    x, context = torch.randn(2, 4, *latent), torch.randn(2, 77, shape.context)
    unet_map = map_unet(unet)
    plan = make_plan(options, unet_map, latent)

    def patch_and_restore() -> None:
        with carried_out(unet, plan, timesteps):
            pass

    def hooks_of_a_call() -> float:
        spent: list[float] = []
        with carried_out(unet, plan, timesteps):
            _time_hooks(unet, spent)
            unet(x, torch.full((2,), timesteps[0]), context=context)
        return sum(spent)

    once: dict[str, Callable[[], object]] = {
        "map the UNet": lambda: map_unet(unet),
        "plan a pass": lambda: make_plan(options, unet_map, latent),
        "patch and restore": patch_and_restore,
    }
    figures = {name: statistics.median(_microseconds(f) for _ in range(repeats)) for name, f in once.items()}
    return {**figures, "hooks of one call": statistics.median(hooks_of_a_call() for _ in range(repeats))}


def _narrow(shape: Shape) -> Shape:
    channels = tuple(NARROW * width // shape.channels[0] for width in shape.channels)
    return dataclasses.replace(shape, channels=channels, heads=tuple(width // NARROW for width in channels))


def _time_hooks(unet: nn.Module, spent: list[float]) -> None:
    """Adds what each hook on a module of the UNet takes, in microseconds, to `spent` when it is called."""

    def timed(hook: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            started = time.perf_counter()
            try:
                return hook(*args)
            finally:
                spent.append((time.perf_counter() - started) * 1e6)

        return call

    for module in unet.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in hooks.items():
                hooks[key] = timed(hook)


def _microseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e6
