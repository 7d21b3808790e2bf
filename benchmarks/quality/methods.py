"""What is compared: each method gives the patch that is around one batch's sampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from demo_model import NATIVE, SITUATION, DemoModel, Patch, Patched, untouched
from hidiffusion_ext.core import Method, Options, Preset, Schedule, Span, make_plan
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.raunet import Pair, RAUNet
from hidiffusion_ext.core.sizes import CELL, Size

from .deep_shrink import deep_shrink

MakePatch = Callable[[DemoModel, Size, int], Patch]
"""`(model, (height, width) in pixels, seed for what draws) -> patch`"""


def _direct(model: DemoModel, size: Size, seed: int) -> Patch:
    return untouched


def _deep_shrink(end: float) -> MakePatch:
    return lambda model, size, seed: lambda timesteps: deep_shrink(model.unet, model.unet_map, Schedule(timesteps), end)


def _hidiffusion(over_picture: bool = False, **options: Any) -> MakePatch:
    """The project's own methods through the public core."""

    def method(model: DemoModel, size: Size, seed: int) -> Patch:
        wanted = Options(native_size=NATIVE, **options)
        situation = dataclasses.replace(SITUATION, over_picture=over_picture)
        plan = make_plan(wanted, model.unet_map, (size[0] // CELL, size[1] // CELL), situation)
        return model.patched(plan, seed)

    return method


def _counted_in_steps() -> MakePatch:
    """HiDiffusion with its spans counted in the steps of each pass, as the official code counts them."""

    def method(model: DemoModel, size: Size, seed: int) -> Patch:
        plan = make_plan(Options(native_size=NATIVE), model.unet_map, (size[0] // CELL, size[1] // CELL))

        def patch(timesteps: Sequence[float]) -> AbstractContextManager[Patched | None]:
            def counted(pair: Pair) -> Pair:
                last = int(pair.span.end * len(timesteps))
                end = 1 - timesteps[last] / 1000 - 1e-6 if 0 < last < len(timesteps) else float(last > 0)
                return dataclasses.replace(pair, span=Span(0, end))

            parts = [
                RAUNet(counted(part.strided), counted(part.pooled)) if isinstance(part, RAUNet) else part
                for part in plan.parts
            ]
            return model.patched(plan.with_parts(parts), seed)(timesteps)

        return patch

    return method


def _custom(t1: float) -> MakePatch:
    return _hidiffusion(preset=Preset.X2, t1=t1)


def _scalecrafter(**options: Any) -> MakePatch:
    return _hidiffusion(**{"method": Method.SCALECRAFTER, "msw_msa": False, "damped_guidance": False, **options})


METHODS: dict[str, MakePatch] = {
    "direct": _direct,
    "RAU-Net only": _hidiffusion(msw_msa=False),
    "MSW-MSA only": _hidiffusion(rau_net=False),
    "HiDiffusion": _hidiffusion(),
    "HiDiffusion by steps": _counted_in_steps(),
    "HiDiffusion T1 0.2": _custom(0.2),
    "HiDiffusion T1 0.4": _custom(0.4),
    "HiDiffusion T1 0.6": _custom(0.6),
    "HiDiffusion T1 0.8": _custom(0.8),
    "ScaleCrafter": _scalecrafter(),
    "ScaleCrafter + dispersion": _scalecrafter(preset=Preset.X4, dispersion=True),
    "ScaleCrafter + damped guidance": _scalecrafter(preset=Preset.X4, damped_guidance=True),
    "ScaleCrafter + MSW-MSA": _scalecrafter(msw_msa=True),
    "Relay": _hidiffusion(method=Method.RELAY),
    "Relay, nothing left out": _hidiffusion(method=Method.RELAY, faster_second_pass=FasterSecondPass.OFF),
    "Deep Shrink 75%": _deep_shrink(0.75),
}
"""Dispersion and damped guidance belong to the 4x preset, which is used at every size then.

The methods' own thresholds are for latents of 64 to 128 cells a side. The noise level at which a picture's layout is
settled is proportional to that side (Hoogeboom et al. 2023, arXiv 2301.11093, section 3.1; Chen 2023, 2301.10972). The
demo model's 16 cells are a quarter of SD1.5's 64: T1 0.4 is 0.8 at a quarter of the noise, T1 0.7 and T2 0.3 are 0.95
and 0.7, ScaleCrafter's 0.6 is 0.9, Deep Shrink's 0.35 is 0.75.
"""


def over_picture(helper: str, faster: FasterSecondPass, **guidance: float) -> MakePatch:
    """What a second pass is made with: HiDiffusion (a preset's T1 is 0.4 at most there), MSW-MSA only, or nothing."""
    if helper == "direct":
        return _direct
    rau_net = helper == "HiDiffusion"
    return _hidiffusion(over_picture=True, rau_net=rau_net, faster_second_pass=faster, **guidance)
