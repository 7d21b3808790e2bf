"""HiDiffusion's presets (arXiv 2311.17528 and the official code): when the strided and the pooled pair are active."""

from __future__ import annotations

import dataclasses

from .options import Options, Preset
from .plan import CELL, Plan, Task
from .schedule import Span
from .unet_map import Family

X4_SIDES = 4
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

T1_SDXL_CONTROLNET = 0.5
"""T1 of SDXL's 2x preset when a ControlNet guides the pass (official code)."""


def add_raunet(options: Options, plan: Plan, task: Task) -> Plan:
    """The plan with RAU-Net, if it is switched on."""
    preset = options.preset
    if preset in (Preset.AUTO, Preset.CUSTOM):
        preset = Preset.X4 if min(plan.latent) * CELL >= X4_SIDES * plan.native else Preset.X2
    shown = Preset.CUSTOM if options.preset is Preset.CUSTOM else preset
    strided, pooled = _pairs(options, preset, plan, task) if options.rau_net else (Span(), Span())
    return dataclasses.replace(plan, preset=shown, strided=strided, pooled=pooled)


def _pairs(options: Options, preset: Preset, plan: Plan, task: Task) -> tuple[Span, Span]:
    """When the strided and the pooled pair are active.

    SD runs the strided pair until T1 and the pooled pair until T2, SDXL the other way round. The aggressive start
    of SDXL is not for inpainting (9-channel) and Playground models; a T2 of one's own replaces it.
    """
    sdxl = plan.unet.family is Family.SDXL
    t1, t2 = (options.t1, options.t2) if options.preset is Preset.CUSTOM else PRESETS[preset, sdxl]
    if not sdxl:
        return Span(0, t1), Span(0, t2)
    if task.controlnet and preset is Preset.X2 and options.preset is not Preset.CUSTOM:
        t1 = T1_SDXL_CONTROLNET
    if preset is Preset.X2 and t2 == 0 and plan.unet.in_channels != 9 and not task.playground:
        aggressive = min(AGGRESSIVE_SHARE, t1)
        return Span(0, aggressive), Span(aggressive, t1)
    return Span(0, t2), Span(0, t1)
