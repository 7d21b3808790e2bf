"""The plan of one sampling pass of a job."""

from __future__ import annotations

import inspect
from typing import Any

from ..core import NoiseLevels, Options, Plan, Situation, UNetMap, make_plan, map_unet, planning
from ..core.plan import Technique
from ..core.schedule import DISCRETE
from ..core.sizes import Size
from .conflicts import conflicts
from .model import Model, find_model


def plan_pass(
    p: Any, options: Options, latent: Size, *, hires: bool, levels: NoiseLevels = DISCRETE
) -> tuple[Model, Plan]:
    """The model that is loaded now, and the plan of a pass with it.

    Args:
        p: The job; its `sd_model` is looked at.
        options: What the user asked for.
        latent: Latent (height, width) of the pass.
        hires: Whether it is the second pass of a hires-fix job.
        levels: The model's own noise schedule, once the sampler has told it.

    Raises:
        Refused: if this model cannot be patched, or not as asked or not beside what else is at work.
    """
    model, unet_map, situation = _found(p, levels, hires=hires)
    return model, make_plan(options, unet_map, latent, situation)


def native_side(p: Any, options: Options) -> int:
    """Pixels per side that the model which is loaded now was made for.

    Raises:
        Refused: if this model cannot be patched, or not as asked.
    """
    _, unet_map, situation = _found(p, DISCRETE, hires=False)
    return planning.native_side(options, unet_map, situation)


def _found(p: Any, levels: NoiseLevels, *, hires: bool) -> tuple[Model, UNetMap, Situation]:
    """The model that is loaded now, its sites, and what else is known of a pass with it."""
    model = find_model(p)
    unet_map = map_unet(model.unet)
    is_playground = "playground" in model.name.casefold()
    situation = Situation(
        hires,
        hires or hasattr(p, "init_images"),
        model.prediction == "v",
        is_playground,
        model.controlnet,
        levels,
        {
            **conflicts(model.unet, unet_map, model.transformer_options),
            **_unguided(p, hires=hires),
            **({Technique.RELAY: "this model predicts neither noise nor v"} if model.prediction == "other" else {}),
        },
    )
    return model, unet_map, situation


def _unguided(p: Any, *, hires: bool) -> dict[Technique, str]:
    """What works on guidance and cannot in this pass, and why."""
    found: dict[Technique, str] = {}
    sampler = getattr(p, "sampler", None)
    if goes_on_from_uncond(sampler):
        found[Technique.DAMPED_GUIDANCE] = "CFG++ goes on from the negative prompt as it was evaluated first"
    if hasattr(sampler, "get_timesteps"):
        found[Technique.ANCHOR] = "this sampling method works with noise instead of clean estimates"
    scale = getattr(p, "hr_cfg", None) if hires else None  # the Forge family's, which its API sets to 1 by default
    if (scale or getattr(p, "cfg_scale", None)) == 1:
        found |= dict.fromkeys(
            (Technique.DAMPED_GUIDANCE, Technique.SPLIT_GUIDANCE, Technique.ANCHOR), "nothing is guided at CFG scale 1"
        )
    return found


def goes_on_from_uncond(sampler: Any) -> bool:
    """CFG++, by the name that its functions have in every host: they go on from the unconditional result, which damping
    leaves as it is.
    """
    func = getattr(sampler, "func", None)
    name = getattr(inspect.unwrap(func), "__name__", "") if callable(func) else ""
    return "cfgpp" in name.replace("_", "").casefold()
