"""Noise-damped guidance without a UNet: its change of guidance, and calls that want it."""

from __future__ import annotations

import torch
from unets import tiny_unet

from hidiffusion_ext.core import Change, Plan, Run, Span, map_unet
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.sizes import FeatureSizes

PLAN = Plan(map_unet(tiny_unet()), (8, 8), 64)


def damped(run: Run) -> Change:
    """The change, wanted in the first half of the noise."""
    return DampedGuidance(Span(0, 0.5)).change(PLAN, run, torch.empty(0))


def set_wanted(run: Run, wanted: bool) -> None:
    """Whether the current call's noise wants it."""
    run.timesteps, run.sizes = [999.0 if wanted else 1.0], FeatureSizes((), ())
