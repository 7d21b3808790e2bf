"""What the patching itself costs: no arithmetic, only Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from hidiffusion_ext.core import Options, make_plan, map_unet

from .subjects import OperationCounter, Setting


@torch.inference_mode()
def overhead(counter: OperationCounter, setting: Setting, repeats: int = 30) -> dict[str, float]:
    """Median microseconds for mapping, planning, patching and restoring, and for the hooks of one call.

    The call is one on shapes only. Patched minus plain is the Python work of the hooks and of the operations they add.
    """
    unet_map = map_unet(counter.unet)
    plan = make_plan(Options(), unet_map, setting.latent)
    t = torch.full((setting.batch,), setting.timesteps[0])

    def call() -> None:
        counter.unet(counter.x, t, context=counter.context)

    def patch_and_restore() -> None:
        with counter.patched(plan):
            pass

    plain: list[float] = []
    patched: list[float] = []
    for _ in range(repeats):
        plain.append(_microseconds(call))
        with counter.patched(plan):
            patched.append(_microseconds(call))
    once: dict[str, Callable[[], object]] = {
        "map the UNet": lambda: map_unet(counter.unet),
        "plan a pass": lambda: make_plan(Options(), unet_map, setting.latent),
        "patch and restore": patch_and_restore,
    }
    figures = {name: statistics.median(_microseconds(f) for _ in range(repeats)) for name, f in once.items()}
    return {**figures, "hooks of one call": statistics.median(patched) - statistics.median(plain)}


def _microseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e6
