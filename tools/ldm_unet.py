"""ldm UNets with Stable Diffusion's real structures and random weights, in full size or as small as a test wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ldm.modules.attention import SpatialTransformer
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from fitted_skips import fit_skips
from fused_attention import use_fused_attention
from hidiffusion_ext.core import Family


@dataclass(frozen=True)
class Shape:
    """The dimensions of a UNet.

    Attributes:
        family: SD1 and SD2 have 4 levels with transformers on the finest three, SDXL 3 levels with transformers on
            the coarsest two. SD1 projects into transformers with a 1x1 convolution, the others with a linear layer.
        channels: Channels per level.
        context: Width of the text embeddings.
        heads: Attention heads per level.
        depth: Transformer blocks per spatial transformer.
        deep: The same for the coarsest level with transformers, if that is another number.
    """

    family: Family
    channels: tuple[int, ...]
    context: int
    heads: tuple[int, ...]
    depth: int = 1
    deep: int | None = None


SD15 = Shape(Family.SD1, (320, 640, 1280, 1280), 768, (8, 8, 8, 8))
SD21 = Shape(Family.SD2, (320, 640, 1280, 1280), 1024, (5, 10, 20, 20))
SDXL = Shape(Family.SDXL, (320, 640, 1280), 2048, (5, 10, 20), depth=2, deep=10)
"""The published dimensions (SDXL without its size embedding, whose cost is nil)."""


class LdmUNet(UNetModel):
    """An ldm UNet that gives every transformer block the same text, as all hosts' versions do."""

    def forward(self, x: torch.Tensor, timesteps=None, context=None, y=None, **kwargs) -> torch.Tensor:
        return super().forward(x, timesteps, [context] * 10, y, **kwargs)


def ldm_unet(shape: Shape, *, kind: type[LdmUNet] = LdmUNet, in_channels: int = 4, seed: int = 0) -> Any:
    """A random UNet of this shape with outputs of order 1, ready for inference.

    Args:
        shape: Its dimensions.
        kind: Its class.
        in_channels: 4, or 9 for inpainting.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = _structure(shape, kind, in_channels)
        use_fused_attention(unet)
        fit_skips()
        for parameter in unet.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    return unet.eval().requires_grad_(False)


def _structure(shape: Shape, kind: type[LdmUNet], in_channels: int) -> LdmUNet:
    is_sdxl = shape.family is Family.SDXL
    linear = shape.family is not Family.SD1
    width = shape.channels[0]
    per_head = {channels // heads for channels, heads in zip(shape.channels, shape.heads)}
    heads: dict[str, Any] = (
        {"num_heads": shape.heads[0]} if len(set(shape.heads)) == 1 else {"num_head_channels": per_head.pop()}
    )
    unet = kind(
        image_size=32,
        in_channels=in_channels,
        out_channels=4,
        model_channels=width,
        num_res_blocks=2,
        channel_mult=tuple(channels // width for channels in shape.channels),
        attention_resolutions=(2, 4) if is_sdxl else (1, 2, 4),
        use_spatial_transformer=True,
        transformer_depth=shape.depth,
        context_dim=[shape.context] * shape.depth,
        use_linear_in_transformer=linear,
        legacy=False,
        **heads,
    )
    if shape.deep is not None and shape.deep != shape.depth:
        coarsest: tuple[Any, ...] = (*unet.input_blocks[-2:], unet.middle_block, *unet.output_blocks[:3])
        for block in coarsest:
            for index, layer in enumerate(block):
                if isinstance(layer, SpatialTransformer):
                    inside, text = layer.in_channels, [shape.context] * shape.deep
                    attention = inside, shape.heads[-1], inside // shape.heads[-1]
                    block[index] = SpatialTransformer(*attention, shape.deep, context_dim=text, use_linear=linear)
    return unet
