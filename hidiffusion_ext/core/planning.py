"""Decides, before anything is touched, what one sampling pass gets."""

from __future__ import annotations

import dataclasses

from .methods import with_parts
from .native_first import MAKE_TWO
from .options import Options, Passes, Preset, Refused
from .plan import Plan, Situation, is_large
from .sizes import CELL, Size
from .unet_map import Family, UNetMap

NATIVE_SIDE = {Family.SD1: 512, Family.SD2: 512, Family.SDXL: 1024}
"""Pixels per side a family was trained at."""

NATIVE_SIDE_SD2_V = 768
NATIVE_SIDE_TURBO = 512


def make_plan(options: Options, unet: UNetMap, latent: Size, situation: Situation = Situation()) -> Plan:
    """The plan for one pass.

    Args:
        options: What the user asked for; `enabled` is not looked at.
        unet: The UNet's sites.
        latent: Latent (height, width) of the pass.
        situation: What else the host knows.

    Raises:
        Refused: if the preset is for another model or method, or if everything asked for has to be left out.
    """
    native = native_side(options, unet, situation)
    plan = Plan(unet, latent, native, situation.over_picture, situation.v_prediction, situation.unguided)
    height, width = latent[0] * CELL, latent[1] * CELL

    def nothing(reason: str) -> Plan:
        return dataclasses.replace(plan, reason=f"nothing: {reason}")

    if options.passes is (Passes.FIRST if situation.hires else Passes.HIRES):
        which = "hires" if situation.hires else "first"
        return nothing(f"this is a {which} pass, Passes is {options.passes.value}")
    if not is_large((width, height), native):
        return dataclasses.replace(
            plan, reason=f"nothing to do at {width}x{height}: the model was made for {native}x{native}"
        )
    planned = with_parts(options, plan, situation)
    if planned.parts:
        return planned
    if not planned.left_out:
        return nothing("everything it could do is switched off")
    text = ", ".join(map(str, planned.left_out))
    if options.method in MAKE_TWO and situation.hires:  # the pass is there, as the picture is made in two
        return dataclasses.replace(planned, reason=text)
    raise Refused(text)


def native_side(options: Options, unet: UNetMap, situation: Situation) -> int:
    """Pixels per side that the model was made for; the arguments are `make_plan`'s.

    Raises:
        Refused: if the preset is for another model.
    """
    if options.preset is Preset.TURBO and unet.family is not Family.SDXL:
        raise Refused(f"the Turbo preset is for SDXL-Turbo, this model is {unet.family.value}")
    if options.native_size:
        return options.native_size
    if options.preset is Preset.TURBO:
        return NATIVE_SIDE_TURBO
    return NATIVE_SIDE_SD2_V if unet.family is Family.SD2 and situation.v_prediction else NATIVE_SIDE[unet.family]
