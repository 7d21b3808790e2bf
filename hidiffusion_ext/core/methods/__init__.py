"""What each method does in a pass: which parts, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..options import FasterSecondPass, Method, Options, Preset
from ..parts.anchor import Anchor
from ..parts.deep_cache import SETTLED_SIGMA, DeepCache
from ..parts.guidance_interval import LEAST_SIGMA, GuidanceInterval
from ..parts.part import Part
from ..parts.raunet import RAUNet
from ..parts.split_guidance import SplitGuidance
from ..parts.windows import MSWMSA, USUAL, native_windows
from ..plan import LeftOut, Plan, Situation
from ..schedule import below
from . import hidiffusion, relay, scalecrafter

METHODS = {
    Method.AUTO: hidiffusion.planned,
    Method.HIDIFFUSION: hidiffusion.planned,
    Method.SCALECRAFTER: scalecrafter.planned,
    Method.NATIVE_FIRST: hidiffusion.planned,
    Method.RELAY: relay.planned,
}
"""(options, plan so far, situation) -> the plan with the parts of the method. Native first, and Auto where it takes
that, makes other passes of a job; in them it is HiDiffusion."""


def with_parts(options: Options, plan: Plan, situation: Situation) -> Plan:
    """The plan with all parts that were asked for, without those that have to be left out.

    Raises:
        Refused: if the preset is for another method.
    """
    asked = METHODS[options.method](options, plan, situation)
    asked = asked.with_parts([*asked.parts, *_beside(options, plan, situation)])
    reasons = {part.name: situation.against(part) for part in asked.parts}
    kept = asked.with_parts(part for part in asked.parts if not reasons[part.name])
    left_out = (part for part in asked.parts if reasons[part.name] and not reasons.get(part.rests_on))
    return replace(kept, left_out=tuple(LeftOut(part.name, reasons[part.name]) for part in left_out))


def _beside(options: Options, plan: Plan, situation: Situation) -> Iterator[Part]:
    """The parts that every method can have."""
    late = plan.over_picture or options.method is Method.RELAY
    if options.msw_msa:
        across = native_windows(plan) if late else USUAL
        yield MSWMSA(plan.unet.finest_attentions, options.window_shift, across)
    if late:
        faster = options.faster_second_pass
        if faster.has(FasterSecondPass.DEEP_CACHE):
            yield DeepCache(plan.unet.deep_blocks, below(SETTLED_SIGMA, situation.levels))
        if faster.has(FasterSecondPass.INTERVAL):
            yield GuidanceInterval(below(LEAST_SIGMA, situation.levels))
    if plan.over_picture and options.split_guidance != 1:
        yield SplitGuidance(options.split_guidance)
    if plan.over_picture and options.anchor:
        yield Anchor(options.anchor)


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
    if METHODS[options.method] is not hidiffusion.planned:
        found["rau_net"] = "not with this method"
    elif not options.rau_net:
        found |= dict.fromkeys(("t1", "t2"), f"{RAUNet.name} is off")
    if not options.msw_msa:
        found["window_shift"] = f"{MSWMSA.name} is off"
    if not plan.over_picture:
        found |= dict.fromkeys(("split_guidance", "anchor"), "only in a hires pass or img2img")
    return found
