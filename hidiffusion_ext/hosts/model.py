"""Finds the UNet of a job's model."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..core import Refused
from .compiled import CAN_PAUSE, is_compiled


class NoUNet(Refused):
    """The job's model has no UNet where the hosts keep it; the message is one sentence for the user."""


@dataclass(frozen=True)
class Model:
    """A job's model.

    Attributes:
        unet: The module that is called once per evaluation, itself callable (compiled wrappers are taken off).
        evaluator: The object whose method `apply_model` every evaluation of the UNet goes through.
        name: The checkpoint's name.
        title: What the checkpoint's file says it is (modelspec); the file's own name where it says nothing.
        prediction: What the UNet predicts: "noise", "v", or "other" (rectified flows and the like).
        controlnet: Whether a ControlNet guides the coming pass.
        transformer_options: What other extensions asked the host to do in the UNet (the Forge family only).
    """

    unet: nn.Module
    evaluator: Any
    name: str
    title: str
    prediction: str
    controlnet: bool = False
    transformer_options: Mapping[str, Any] = field(default_factory=dict)


def forge_patcher(sd_model: Any) -> Any:
    """The object in which the Forge family keeps a UNet, its options and its ControlNets; None on other hosts."""
    return getattr(getattr(sd_model, "forge_objects", None), "unet", None)


def find_model(p: Any) -> Model:
    """The model a processing job samples with, on A1111 and the Forge family.

    Raises:
        NoUNet: if there is none where these hosts keep it, or if another program computes in its place.
    """
    substitute = getattr(sys.modules.get("modules.sd_unet"), "current_unet", None)
    if substitute is not None:
        raise NoUNet(f"{type(substitute).__name__} computes in place of the model's UNet, which cannot be changed then")
    sd_model = p.sd_model
    patcher = forge_patcher(sd_model)
    unet = getattr(getattr(patcher or sd_model, "model", None), "diffusion_model", None)
    if isinstance(unet, nn.Module) and not CAN_PAUSE and is_compiled(unet):
        raise NoUNet("the model is compiled (torch.compile), and before PyTorch 2.6 that cannot be paused for a pass")
    unet = getattr(unet, "_orig_mod", unet)
    if not isinstance(unet, nn.Module):
        raise NoUNet(
            f"this model ({type(sd_model).__name__}) has no UNet; HiDiffusion works with SD1.5, SD2.1 and SDXL"
        )
    checkpoint = getattr(sd_model, "sd_checkpoint_info", None)
    name, said = getattr(checkpoint, "name", ""), getattr(checkpoint, "metadata", None)
    return Model(
        unet,
        evaluator=getattr(patcher, "model", sd_model),
        name=name,
        title=str((said or {}).get("modelspec.title") or re.split(r"[\\/]", name)[-1]),
        prediction=_prediction(sd_model, patcher),
        controlnet=getattr(patcher, "controlnet_linked_list", None) is not None or is_controlled(unet),
        transformer_options=getattr(patcher, "model_options", {}).get("transformer_options", {}),
    )


def is_controlled(unet: nn.Module) -> bool:
    """Whether sd-webui-controlnet (A1111) has any unit at work: it then walks the UNet's blocks in its own forward."""
    return "forward" in vars(unet) and hasattr(unet, "_original_forward")


def _prediction(sd_model: Any, patcher: Any) -> str:
    """What the host takes the UNet's answers for.

    The Forge family asks an object beside the UNet, which other extensions can put another in place of for a pass
    (reForge's for CosXL and flows), so it is tried out here. A1111 says it on the model, other models nothing.
    """
    sampling = _sampling(patcher)
    if hasattr(sampling, "calculate_denoised"):
        return _tried_out(sampling)
    said = getattr(sd_model, "parameterization", "eps")
    return {"eps": "noise", "v": "v"}.get(said, "other")


def _sampling(patcher: Any) -> Any:
    """The Forge family's object with a model's noise levels; None on other hosts."""
    model = getattr(patcher, "model", None)
    return getattr(model, "predictor", getattr(model, "model_sampling", None))


def noise_source(sd_model: Any) -> torch.Tensor | None:
    """What a model's samplers take its noise levels from, on whatever device it is."""
    return getattr(_sampling(forge_patcher(sd_model)), "sigmas", getattr(sd_model, "alphas_cumprod", None))


def _tried_out(sampling: Any) -> str:
    """What an answer of 1 to a latent of 1, both at sigma 2, is taken for (arXiv 2202.00512, appendix D)."""
    sigma, one = torch.tensor([2.0]), torch.ones(1, 1, 1, 1)
    try:
        asked = float(sampling.calculate_input(sigma, one))
        clean = float(sampling.calculate_denoised(sigma, one, one))
    except Exception:  # whatever an object of another extension may raise
        return "other"
    if not math.isclose(asked, 5**-0.5, rel_tol=1e-3):  # a latent of variance 1
        return "other"
    meanings = {"noise": 1 - 2, "v": 1 / 5 - 2 / 5**0.5}
    return next((name for name, x0 in meanings.items() if math.isclose(clean, x0, rel_tol=1e-3)), "other")
