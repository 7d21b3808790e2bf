"""RAU-Net: resolution-aware down- and upsampling (HiDiffusion, arXiv 2311.17528, section 3.2). Pure functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .arithmetic import single_precision
from .geometry import geometry
from .resizing import bicubic
from .sizes import Size
from .unet_map import BORDERED, Axes

STRIDED_CONV: dict[str, Any] = geometry(stride=(4, 4), dilation=(2, 2), padding=(2, 2))
"""What the downsampler's own 3x3 convolution (stride 2, dilation 1, padding 1) becomes while active (official code)."""


@single_precision
def pool(x: torch.Tensor, seamless: Axes = BORDERED) -> torch.Tensor:
    """Halves a block's output by averaging 2x2 cells: [B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
    for axis, goes_on in zip((-2, -1), seamless):
        if x.shape[axis] % 2:  # not by ceil_mode, which is wrong on Macs before PyTorch 2.9
            x = torch.cat([x, x.narrow(axis, 0 if goes_on else -1, 1)], axis)
    return F.avg_pool2d(x, 2)


def undo_pool(x: torch.Tensor, size: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Brings [B, C, h, w] back to the size before the pool (bicubic, as in the official code)."""
    return bicubic(x, size, seamless)


def upsample_to(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Brings an upsampler's convolution input [B, C, h, w] to the size of the skip it will meet (nearest).

    The host has already doubled it; nearest doubling followed by nearest resizing is nearest resizing at once.
    """
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")
