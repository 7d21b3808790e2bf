"""Small UNets of every family to patch, and everything of them that a patch could leave changed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Family
from ldm_unet import LdmUNet

STEPS = 10

UNETS = {
    Family.SD1: tiny_unet(Family.SD1, sized=True),
    Family.SD2: tiny_unet(Family.SD2, sized=True, seed=1),
    Family.SDXL: tiny_unet(Family.SDXL, sized=True, depth=2, deep=2),
}


def snapshot(unet: nn.Module) -> list[Any]:
    """Everything of every module that a patch could leave changed."""
    state = []
    for name, module in unet.named_modules():
        attributes = {
            key: (type(value), tuple(value)) if isinstance(value, (dict, OrderedDict)) else value
            for key, value in vars(module).items()
        }
        tensors = [(id(t), t._version) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        state.append((name, type(module), attributes, tensors))
    return state


def call(unet: LdmUNet, latent: tuple[int, int], step: int = 0, batch: int = 1) -> torch.Tensor:
    """What the UNet gives for a fixed latent and text at a step of an evenly spaced pass of `STEPS`."""
    x, context = inputs(latent, batch=batch)
    with torch.inference_mode():
        return unet(x, torch.full((batch,), uniform_timesteps(STEPS)[step]), context=context)
