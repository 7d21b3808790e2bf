"""Resizing feature maps and latents, on devices that cannot do it too. A size is (height, width) in cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .arithmetic import single_precision, table
from .sizes import Size
from .unet_map import BORDERED, Axes


def bicubic(x: torch.Tensor, size: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Brings [B, C, h, w] to another size, as torch's bicubic interpolation does, which Macs (MPS) lack before 2.5."""
    return x if x.shape[-2:] == size else _resized(x, size, "bicubic", seamless)


def bilinear(x: torch.Tensor, size: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Brings [B, C, h, w] to another size, as torch's bilinear interpolation does."""
    return x if x.shape[-2:] == size else _resized(x, size, "bilinear", seamless)


@single_precision
def _resized(x: torch.Tensor, size: Size, mode: str, seamless: Axes) -> torch.Tensor:
    if any(seamless) or (mode == "bicubic" and x.device.type == "mps"):
        return by_matrices(x, size, mode, seamless)
    return F.interpolate(x, size=size, mode=mode)


@single_precision
def by_matrices(x: torch.Tensor, size: Size, mode: str, seamless: Axes = BORDERED) -> torch.Tensor:
    """The same by a matrix product along each axis."""
    axes = zip(x.shape[-2:], size, seamless)
    rows, columns = (_weights(source, target, mode, goes_on, x.device) for source, target, goes_on in axes)
    return rows @ x @ columns.T


@table
def _weights(source: int, target: int, mode: str, goes_on: bool, device: torch.device) -> torch.Tensor:
    """[target, source]: what each cell becomes of, read off what torch makes of single cells.

    Where a picture goes on at its other edge, it is the middle one of three.
    """
    copies = 3 if goes_on else 1
    single = torch.eye(copies * source)[None, None]
    found = F.interpolate(single, size=(copies * target, copies * source), mode=mode)[0, 0]
    return found.view(copies, target, copies, source)[copies // 2].sum(1).to(device)
