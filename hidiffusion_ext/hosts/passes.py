"""The plan of one sampling pass of a job."""

from __future__ import annotations

from typing import Any

from ..core import Options, Plan, Task, make_plan, map_unet
from ..core.plan import Part
from ..core.windows import Size
from .model import Model, find_model
from .neighbours import conflicts


def plan_pass(p: Any, options: Options, latent: Size, *, hires: bool) -> tuple[Model, Plan]:
    """The model that is loaded now, and the plan of a pass with it.

    Args:
        p: The job; its `sd_model` is looked at.
        options: What the user asked for.
        latent: Latent (height, width) of the pass.
        hires: Whether it is the second pass of a hires-fix job.

    Raises:
        Refused: if this model cannot be patched, or not as asked or not beside what else is at work.
    """
    model = find_model(p)
    unet_map = map_unet(model.unet)
    is_playground = "playground" in model.name.casefold()
    known = conflicts(model.unet, unet_map, model.transformer_options)
    if hasattr(getattr(p, "sampler", None), "get_timesteps"):
        known = {**known, Part.ANCHOR: "this sampling method works with noise instead of clean estimates"}
    task = Task(
        hires,
        hires or hasattr(p, "init_images"),
        model.v_prediction,
        is_playground,
        model.controlnet,
        known,
    )
    return model, make_plan(options, unet_map, latent, task)
