"""Decides, before anything is touched, what one sampling pass gets: what holds for every method, then the method's own.

The methods' numbers are in `planning_hidiffusion`, `planning_scalecrafter` and `planning_relay`.
"""

from __future__ import annotations

import dataclasses

from .options import Method, Options, Passes, Preset, Refused
from .plan import Plan, Situation, Technique, WindowSite, is_large
from .planning_hidiffusion import add_raunet
from .planning_relay import add_relay
from .planning_scalecrafter import add_redilation
from .schedule import Span
from .sizes import CELL, Size
from .unet_map import Family, UNetMap

NATIVE_SIDE = {Family.SD1: 512, Family.SD2: 512, Family.SDXL: 1024}
"""Pixels per side a family was trained at."""

NATIVE_SIDE_SD2_V = 768
NATIVE_SIDE_TURBO = 512

PLANNERS = {
    Method.HIDIFFUSION: add_raunet,
    Method.SCALECRAFTER: add_redilation,
    Method.NATIVE_FIRST: add_raunet,
    Method.RELAY: add_relay,
}
"""(options, plan so far, situation) -> the plan with what the method does in a pass. Native first makes other passes of
a job; in them it is HiDiffusion."""

WORKS_BY = {
    Method.HIDIFFUSION: Technique.RAU_NET,
    Method.SCALECRAFTER: Technique.REDILATION,
    Method.NATIVE_FIRST: Technique.RAU_NET,
    Method.RELAY: Technique.RELAY,
}
"""What a method changes feature maps by."""


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
    plan = Plan(
        unet,
        latent,
        native,
        window_shift=options.window_shift,
        over_picture=situation.over_picture,
        unguided=situation.unguided,
    )
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
    planned = PLANNERS[options.method](options, plan, situation)
    left_out: list[Technique] = []
    for technique in (WORKS_BY[options.method], Technique.DISPERSION):
        if technique in situation.conflicts and technique in planned.techniques:
            planned = planned.without(technique)
            left_out.append(technique)
    if planned.damped.end and Technique.DAMPED_GUIDANCE in situation.conflicts:
        planned = dataclasses.replace(planned, damped=Span())
        left_out.append(Technique.DAMPED_GUIDANCE)
    windows: tuple[WindowSite, ...] = ()
    if options.msw_msa:
        if Technique.MSW_MSA in situation.conflicts:
            left_out.append(Technique.MSW_MSA)
        else:
            windows = finest_attentions(unet)
    split, anchor = (options.split_guidance, options.anchor) if situation.over_picture else (1.0, 0.0)
    if split != 1 and Technique.SPLIT_GUIDANCE in situation.conflicts:
        left_out.append(Technique.SPLIT_GUIDANCE)
        split = 1.0
    if anchor and Technique.ANCHOR in situation.conflicts:
        left_out.append(Technique.ANCHOR)
        anchor = 0.0
    reasons = tuple(f"{technique.value} because {situation.conflicts[technique]}" for technique in left_out)
    planned = dataclasses.replace(planned, windows=windows, left_out=reasons, split_guidance=split, anchor=anchor)
    if planned.techniques:
        return planned
    if reasons:
        text = ", ".join(f"no {what}" for what in reasons)
        if (
            options.method is Method.NATIVE_FIRST and situation.hires
        ):  # the pass is there, as the picture is made in two
            return dataclasses.replace(planned, reason=text)
        raise Refused(text)
    return nothing("everything it could do is switched off")


def without_effect(options: Options, plan: Plan) -> dict[str, str]:
    """The settings that change nothing beside the others, by name, each with the reason in a few words.

    Args:
        options: What the user asked for.
        plan: What a pass gets with it.
    """
    found: dict[str, str] = {}
    if options.method is Method.SCALECRAFTER:
        found["t2"] = "only with the other methods"
        if plan.preset is not Preset.X4:
            found |= dict.fromkeys(("dispersion", "damped_guidance"), "only with the preset 4x")
    else:
        found |= dict.fromkeys(("dispersion", "damped_guidance"), "only with the method ScaleCrafter")
    if WORKS_BY[options.method] is not Technique.RAU_NET:
        found["rau_net"] = "only with the methods HiDiffusion and Native first"
    elif not options.rau_net:
        found |= dict.fromkeys(("t1", "t2"), "RAU-Net is off")
    if not options.msw_msa:
        found["window_shift"] = "MSW-MSA is off"
    if not plan.over_picture:
        found |= dict.fromkeys(("split_guidance", "anchor"), "only in a hires pass or img2img")
    return found


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


def finest_attentions(unet: UNetMap) -> tuple[WindowSite, ...]:
    """The self-attentions of the finest level that has any, in the order they run."""
    finest = min(unet.level(i) for i, block in enumerate(unet.inputs) if block.attentions)
    inside = [i for i in range(len(unet.inputs)) if unet.level(i) == finest]
    sites = [WindowSite(name, i, output=False) for i in inside for name in unet.inputs[i].attentions]
    for index in (unet.partner(i) for i in reversed(inside)):
        sites += [WindowSite(name, index, output=True) for name in unet.outputs[index].attentions]
    return tuple(sites)
