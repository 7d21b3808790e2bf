"""Bicubic resizing, on devices that lack it too. Pure functions; a size is (height, width) in cells."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

from .sizes import Size


def bicubic(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Brings [B, C, h, w] to another size, as torch's bicubic interpolation does.

    Processors cannot do it in half precision before PyTorch 2.2, Macs (MPS) not at all before 2.5.
    """
    if x.device.type == "mps":
        return bicubic_by_matrices(x, size)
    if x.device.type == "cpu":
        return F.interpolate(x.float(), size=size, mode="bicubic").to(x.dtype)
    return F.interpolate(x, size=size, mode="bicubic")


def bicubic_by_matrices(x: torch.Tensor, size: Size) -> torch.Tensor:
    """The same by a matrix product along each axis, in single precision."""
    rows, columns = (_weights(source, target, x.device) for source, target in zip(x.shape[-2:], size))
    return (rows @ x.float() @ columns.T).to(x.dtype)


@lru_cache(maxsize=16)
def _weights(source: int, target: int, device: torch.device) -> torch.Tensor:
    """[target, source]: what each cell becomes of, read off what torch makes of single cells."""
    with torch.inference_mode(mode=False):  # the tables outlive the pass that asks for them first
        single = torch.eye(source)[None, None]
        return F.interpolate(single, size=(target, source), mode="bicubic")[0, 0].to(device)
