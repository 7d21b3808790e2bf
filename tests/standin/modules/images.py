"""Resizing and conversion of images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def resize_image(im: Image.Image, width: int, height: int, upscaler_name: str | None = None) -> Image.Image:
    return im.resize((width, height), Image.NEAREST if upscaler_name == "Nearest" else Image.LANCZOS)


def flatten(img: Image.Image, background: str = "#ffffff") -> Image.Image:
    """RGB, transparency replaced by `background`."""
    if img.mode == "RGBA":
        base = Image.new("RGBA", img.size, background)
        base.paste(img, mask=img)
        img = base
    return img.convert("RGB")


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """`[B, 3, H, W]` in 0..1"""
    return (
        torch.from_numpy(np.stack([np.asarray(im.convert("RGB")) for im in pictures])).permute(0, 3, 1, 2).float() / 255
    )


def to_image(x: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in -1..1 to a picture."""
    return Image.fromarray((255 * ((x + 1) / 2).clamp(0, 1)).permute(1, 2, 0).numpy().astype(np.uint8))
