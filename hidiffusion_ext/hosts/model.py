"""Finds the UNet of a job's model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..core import Task


class NoUNet(ValueError):
    """The job's model has no UNet where the hosts keep it; the message is one sentence for the user."""


@dataclass(frozen=True)
class Model:
    """A job's model.

    Attributes:
        unet: The module that is called once per evaluation, itself callable (compiled wrappers are taken off).
        name: The checkpoint's name.
        v_prediction: Whether the model predicts v.
    """

    unet: nn.Module
    name: str
    v_prediction: bool

    def task(self, *, hires: bool) -> Task:
        """What the planner has to know about a pass with this model."""
        return Task(hires, self.v_prediction, playground="playground" in self.name.casefold())


def find_model(p: Any) -> Model:
    """The model a processing job samples with, on A1111 and the Forge family.

    Raises:
        NoUNet: if there is none where these hosts keep it, or if another program computes in its place.
    """
    substitute = getattr(sys.modules.get("modules.sd_unet"), "current_unet", None)
    if substitute is not None:
        raise NoUNet(f"{type(substitute).__name__} computes in place of the model's UNet, which cannot be changed then")
    sd_model = p.sd_model
    forge = getattr(sd_model, "forge_objects", None)
    wrapper = sd_model if forge is None else forge.unet
    unet = getattr(getattr(wrapper, "model", None), "diffusion_model", None)
    unet = getattr(unet, "_orig_mod", unet)
    if not isinstance(unet, nn.Module):
        raise NoUNet(
            f"this model ({type(sd_model).__name__}) has no UNet; HiDiffusion works with SD1.5, SD2.1 and SDXL"
        )
    checkpoint = getattr(sd_model, "sd_checkpoint_info", None)
    return Model(unet, getattr(checkpoint, "name", ""), getattr(sd_model, "parameterization", None) == "v")
