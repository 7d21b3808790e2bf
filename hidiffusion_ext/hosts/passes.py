"""The plan of one sampling pass of a job."""

from __future__ import annotations

from typing import Any

from ..core import Conflict, Need, Options, Plan, Schedule, Situation, UNetMap, make_plan, map_unet, planning
from ..core.schedule import DISCRETE
from ..core.sizes import Size
from . import conflicts, guiding
from .guiding import SamplerKind, unguided_steps
from .model import Model, find_model

PREDICTS_OTHERWISE = Conflict("this model predicts neither noise nor v", frozenset({Need.PREDICTION}))


def plan_pass(
    p: Any,
    options: Options,
    latent: Size,
    *,
    hires: bool,
    schedule: Schedule | None = None,
    sampler: SamplerKind | None = None,
) -> tuple[Model, Plan]:
    """The model that is loaded now, and the plan of a pass with it.

    Args:
        p: The job; its `sd_model` is looked at.
        options: What the user asked for.
        latent: Latent (height, width) of the pass.
        hires: Whether it is the second pass of a hires-fix job.
        schedule: Its noise levels, once the sampler has told them.
        sampler: What is to be known of its sampler; by default that of the job's own.

    Raises:
        Refused: if this model cannot be patched, or not as asked or not beside what else is at work.
    """
    model, unet_map, situation = _found(
        p, schedule, sampler or SamplerKind.of(getattr(p, "sampler", None)), hires=hires
    )
    return model, make_plan(options, unet_map, latent, situation)


def native_side(p: Any, options: Options) -> int:
    """Pixels per side that the model which is loaded now was made for.

    Raises:
        Refused: if this model cannot be patched, or not as asked.
    """
    _, unet_map, situation = _found(p, None, SamplerKind.of(None), hires=False)
    return planning.native_side(options, unet_map, situation)


def _found(p: Any, schedule: Schedule | None, sampler: SamplerKind, *, hires: bool) -> tuple[Model, UNetMap, Situation]:
    """The model that is loaded now, its sites, and what else is known of a pass with it."""
    model = find_model(p)
    unet_map = map_unet(model.unet)
    is_playground = "playground" in model.title.casefold()  # a UNet of SDXL's layout: nothing else tells it
    situation = Situation(
        hires,
        hires or hasattr(p, "init_images"),
        model.prediction == "v",
        is_playground,
        model.controlnet,
        schedule.levels if schedule else DISCRETE,
        unguided_steps(p, sampler, schedule) if schedule else frozenset(),
        (
            *([PREDICTS_OTHERWISE] if model.prediction == "other" else []),
            *conflicts.conflicts(model.unet, unet_map, model.transformer_options),
            *guiding.conflicts(p, sampler, hires=hires),
        ),
    )
    return model, unet_map, situation
