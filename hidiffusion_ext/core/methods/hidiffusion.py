"""HiDiffusion's presets (arXiv 2311.17528 and the official code): the strided and the pooled pair."""

from __future__ import annotations

import dataclasses

from ..options import Options, Preset
from ..parts.raunet import Pair, RAUNet
from ..plan import Plan, Situation
from ..schedule import Span
from ..sizes import CELL
from ..unet_map import Family

X2_SIDES, X4_SIDES = 2, 4
"""Both sides at least this multiple of the native one: the 4x preset (official code: 2048 for SD1.5, 4096 for SDXL)."""

AGGRESSIVE_SHARE = 8 / 50
"""SDXL below 4x starts with the strided pair for this share of the noise (official code, "aggressive RAU-Net")."""

PRESETS = {
    (Preset.X2, False): (0.4, 0.0),
    (Preset.X4, False): (0.7, 0.3),
    (Preset.X2, True): (0.4, 0.0),
    (Preset.X4, True): (0.7, 0.3),
    (Preset.TURBO, True): (0.5, 0.0),
}
"""(preset, is SDXL) -> (T1, T2) of the official code, which counts steps; shares of the noise are the same with its own
schedule."""

T1_OVER_PICTURE = 0.4
"""The most that a preset's T1 is in a pass over a picture, whose layout is there: at four times the side the demo model
keeps it at half of the noise without RAU-Net (3% of its pictures have too many objects, native ones 5%), and draws it
worse with RAU-Net (docs/quality.md)."""

T1_SDXL_CONTROLNET = 0.5
"""T1 of SDXL's 2x preset when a ControlNet guides the pass (official code)."""


def planned(options: Options, plan: Plan, situation: Situation) -> Plan:
    """The plan with RAU-Net, if it is switched on."""
    sdxl, enlargement = plan.unet.family is Family.SDXL, min(plan.latent) * CELL / plan.native
    preset = options.preset
    if preset is Preset.AUTO and enlargement >= X4_SIDES:
        preset = Preset.X4
    elif preset is Preset.AUTO and (sdxl or enlargement <= X2_SIDES):
        preset = Preset.X2
    t1, t2 = _between(enlargement) if preset is Preset.AUTO else PRESETS[preset, sdxl]
    if situation.controlnet and preset is Preset.X2 and sdxl:
        t1 = T1_SDXL_CONTROLNET
    if situation.over_picture:
        t1 = min(t1, T1_OVER_PICTURE)
    t2 = min(t2, options.t1 or t1)  # a preset's T2 is never later than T1
    plan = dataclasses.replace(plan, preset=preset, preset_t1=t1, preset_t2=t2)
    if not options.rau_net:
        return plan
    strided, pooled = _pairs(options.t1 or t1, options.t2 or t2, plan, situation)
    return plan.with_parts([RAUNet(strided, pooled)])


def _between(enlargement: float) -> tuple[float, float]:
    """T1 and T2 of SD between the sides of the presets 2x and 4x, on straight lines.

    The paper has nothing there, the official code the preset 2x. At three times the side the demo model's pictures are
    better with what lies between (docs/design.md has the figures); SDXL, whose pairs work otherwise, was not measured.
    """
    part = (enlargement - X2_SIDES) / (X4_SIDES - X2_SIDES)
    t1, t2 = (low + part * (high - low) for low, high in zip(PRESETS[Preset.X2, False], PRESETS[Preset.X4, False]))
    return t1, t2


def _pairs(t1: float, t2: float, plan: Plan, situation: Situation) -> tuple[Pair, Pair]:
    """The strided and the pooled pair.

    The strided one has SD's first downsampler, SDXL's second one; the pooled one the block after the first. SD runs the
    strided pair until T1 and the pooled pair until T2, SDXL the other way round. Below 4x SDXL has the aggressive
    start, except inpainting (9-channel) and Playground models; a T2 goes on from it, with both pairs.
    """
    first, second, *_ = plan.unet.downs
    if plan.unet.family is not Family.SDXL:
        return Pair(first, Span(0, t1)), Pair(first + 1, Span(0, t2))
    has_start = plan.preset is Preset.X2 and not plan.unet.inpaints and not situation.playground
    start = min(AGGRESSIVE_SHARE, t1) if has_start else 0.0
    return Pair(second, Span(0, max(start, t2))), Pair(first + 1, Span(0 if t2 else start, t1))
