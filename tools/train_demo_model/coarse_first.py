"""Keeps the finest level of the UNet, while it is trained, from drawing the picture by itself.

In Stable Diffusion the coarse levels lay a picture out and the finest one fills in what is near; its self-attention is
local by itself (HiDiffusion, arXiv 2311.17528, section 3.3). Pictures of 16x16 latents are so small that the finest
level can do all of it, and then nothing that works in the coarse levels, such as RAU-Net, has anything to work on.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from ldm.modules.diffusionmodules.openaimodel import UNetModel

from hidiffusion_ext.core import map_unet

from .model import UNET

SIDE: int = UNET["image_size"]
WINDOW = 4
"""Cells per side of what the finest self-attention sees."""

WINDOWED_SHARE = 0.4
"""Of the batches of native pictures; in the others, and on all larger maps, it sees the whole picture."""

DROPPED_SHARE = 0.5
"""Of the native pictures with much noise: their finest skip connections are zero, so that all must come from below."""

MUCH_NOISE = 400
"""Timesteps above this."""


def train_coarse_first(unet: UNetModel) -> None:
    """Hooks a UNet for training: from here on each call draws anew what its finest level is kept from.

    The UNet is called as `unet(x [B, 4, h, w], timesteps [B], context=...)`; maps larger than native ones (SIDE, SIDE),
    which it only sees where the layout is settled, are left alone.
    """
    unet_map = map_unet(unet)
    finest_inputs = [block for index, block in enumerate(unet_map.inputs) if unet_map.level(index) == 0]
    finest_outputs = [i for i in range(len(unet_map.outputs)) if unet_map.level(unet_map.partner(i)) == 0]
    shift: tuple[int, ...] | None = None
    kept = torch.ones(1)

    def draw(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal shift, kept
        x, timesteps = args[:2]
        native = x.shape[-1] == SIDE
        windowed = native and float(torch.rand(1)) < WINDOWED_SHARE
        shift = tuple(torch.randint(WINDOW, (2,)).tolist()) if windowed else None
        dropped = torch.rand(len(timesteps), device=timesteps.device) < DROPPED_SHARE * native
        kept = (~(dropped & (timesteps > MUCH_NOISE))).float()[:, None, None, None]

    def cut(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if shift is None:
            return None
        x = args[0].unflatten(1, (SIDE, SIDE)).roll(shift, (1, 2))
        return rearrange(x, "b (ny h) (nx w) c -> (b ny nx) (h w) c", h=WINDOW, w=WINDOW), *args[1:]

    def join(module: torch.nn.Module, args: tuple[Any, ...], x: torch.Tensor) -> torch.Tensor | None:
        if shift is None:
            return None
        across = SIDE // WINDOW
        x = rearrange(x, "(b ny nx) (h w) c -> b (ny h) (nx w) c", ny=across, nx=across, h=WINDOW)
        return x.roll(tuple(-s for s in shift), (1, 2)).flatten(1, 2)

    def drop(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        below, skip = args[0].tensor_split([args[0].shape[1] - UNET["model_channels"]], dim=1)
        return torch.cat([below, skip * kept.to(skip)], 1), *args[1:]

    unet.register_forward_pre_hook(draw)
    for block in [*finest_inputs, *(unet_map.outputs[index] for index in finest_outputs)]:
        for name in block.attentions:
            unet.get_submodule(name).register_forward_pre_hook(cut)
            unet.get_submodule(name).register_forward_hook(join)
    for index in finest_outputs:
        unet.get_submodule(f"output_blocks.{index}.0").register_forward_pre_hook(drop)
