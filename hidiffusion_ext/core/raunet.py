"""RAU-Net: resolution-aware down- and upsampling (HiDiffusion, arXiv 2311.17528, section 3.2). Pure functions.

Sizes are (height, width) in latent cells; every reduction rounds up, as a padded strided convolution does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .unet_map import UNetMap
from .windows import Size


class FeatureSizes(NamedTuple):
    """The sizes inside one UNet call.

    Attributes:
        inside: Per input block, the size its layers work at (after its downsampler, before its pool).
        skips: Per input block, the size of the skip connection it leaves.
    """

    inside: tuple[Size, ...]
    skips: tuple[Size, ...]


def feature_sizes(
    unet_map: UNetMap, latent: Size, strided_at: int | None = None, pooled_at: int | None = None
) -> FeatureSizes:
    """The sizes inside a call of the UNet at a latent of the given size.

    Args:
        unet_map: The UNet's blocks.
        latent: The latent's size.
        strided_at: The input block whose downsampler works with stride 4 in this call, if any.
        pooled_at: The input block whose output is pooled in this call, if any.
    """
    size, inside, skips = latent, list[Size](), list[Size]()
    for index, block in enumerate(unet_map.inputs):
        if block.down:
            size = _reduced(size, 4 if index == strided_at else 2)
        inside.append(size)
        if index == pooled_at:
            size = _reduced(size, 2)
        skips.append(size)
    return FeatureSizes(tuple(inside), tuple(skips))


STRIDED_CONV: dict[str, Any] = {
    "stride": (4, 4),
    "dilation": (2, 2),
    "padding": (2, 2),
    "_reversed_padding_repeated_twice": [2, 2, 2, 2],
}
"""What the downsampler's own 3x3 convolution (stride 2, dilation 1, padding 1) becomes while active.

Stride 4, dilation 2, padding 2 (official code). The last entry is where circular ("tiling") convolutions
keep their padding.
"""


def pool(x: torch.Tensor) -> torch.Tensor:
    """Halves a block's output by averaging 2x2 cells: [B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


def undo_pool(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Brings [B, C, h, w] back to the size before the pool (bicubic, as in the official code)."""
    return F.interpolate(x, size=size, mode="bicubic")


def upsample_to(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Brings an upsampler's convolution input [B, C, h, w] to the size of the skip it will meet (nearest).

    The host has already doubled it; nearest doubling followed by nearest resizing is nearest resizing at once.
    """
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")


def _reduced(size: Size, factor: int) -> Size:
    return -(-size[0] // factor), -(-size[1] // factor)
