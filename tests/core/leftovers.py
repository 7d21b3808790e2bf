"""Small UNets of every family to patch, and calls of them."""

from __future__ import annotations

import torch
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import Family
from ldm_unet import LdmUNet

STEPS = 10

UNETS = {
    Family.SD1: shared_unet(Family.SD1, sized=True),
    Family.SD2: shared_unet(Family.SD2, sized=True, seed=1),
    Family.SDXL: shared_unet(Family.SDXL, sized=True, depth=2, deep=2),
}


def call(unet: LdmUNet, latent: tuple[int, int], step: int = 0, batch: int = 1) -> torch.Tensor:
    """What the UNet gives for a fixed latent and text at a step of an evenly spaced pass of `STEPS`."""
    x, context = inputs(latent, batch=batch)
    with torch.inference_mode():
        return unet(x, torch.full((batch,), uniform_timesteps(STEPS)[step]), context=context)
