"""The relay's stages: at which sizes the UNet is called before the full one, and until which noise."""

from __future__ import annotations

import dataclasses
import math

from ..options import Options, Preset, Refused
from ..parts.relay import Relay, Stage
from ..plan import Plan, Situation
from ..schedule import NoiseLevels, Span
from ..sizes import Size, resized

TWO_STAGES_FROM = 3
"""From this multiple of the native side on there is a stage between the native size and the full one."""

NATIVE_SIGMA = 1.7
"""The noise at which a native picture of 64 cells a side is handed on: its layout is settled, its details are not.
At full size that is as many times more as its sides are longer."""

BETWEEN_SIGMA = 2.3
"""The noise, at full size, at which the stage between is handed on, for the same native side."""

SIGMA_SIDE = 512
"""Pixels per native side for which the two sigmas above are meant. A layout of fewer cells is settled at less noise, in
proportion (arXiv 2301.11093, section 3.1); larger native sides are given the same ones."""

MULTIPLES = 8, 4, 2, 1
"""Of how many latent cells a stage's sides are: the most with which it has the picture's aspect. A UNet halves 8 cells
evenly on all its levels."""

STRETCHED = 0.02
"""By how much the aspect may be off."""


def planned(options: Options, plan: Plan, situation: Situation) -> Plan:
    """The plan with a relay.

    Raises:
        Refused: if the preset is HiDiffusion's Turbo.
    """
    if options.preset is Preset.TURBO:
        raise Refused("the Turbo preset belongs to the method HiDiffusion")
    preset = options.preset
    if preset is Preset.AUTO:
        preset = Preset.X4 if plan.enlargement >= TWO_STAGES_FROM else Preset.X2
    scale = min(1.0, plan.native / SIGMA_SIDE)
    handed_on = _share(situation.levels, NATIVE_SIGMA * plan.enlargement * scale)
    two = preset is Preset.X4
    preset_t1, preset_t2 = (_share(situation.levels, BETWEEN_SIGMA * scale), handed_on) if two else (handed_on, 0.0)
    t1 = options.t1 or preset_t1
    preset_t2 = min(preset_t2, t1)  # never later than T1
    t2 = options.t2 or preset_t2
    native, between = plan.enlargement, plan.enlargement**0.5
    stages = (
        [
            Stage(_stage_size(plan.latent, by), Span(*ends), is_native)
            for by, ends, is_native in ((native, (0, t2), True), (between, (t2, t1), False))
        ]
        if t2
        else [Stage(_stage_size(plan.latent, native), Span(0, t1), native=True)]
    )
    kept = tuple(stage for stage in stages if stage.span.end > stage.span.start)
    plan = dataclasses.replace(plan, preset=preset, preset_t1=preset_t1, preset_t2=preset_t2)
    return plan.with_parts([Relay(kept)] if kept else [])


def _share(levels: NoiseLevels, sigma: float) -> float:
    """The share of a model's noise schedule that is over at a sigma."""
    return 1 - levels.left(levels.at_sigma(sigma))


def _stage_size(size: Size, factor: float) -> Size:
    """The size of a stage whose sides are so many times shorter."""
    return resized(size, math.prod(size) / factor**2, tolerance=STRETCHED, multiples=MULTIPLES)
