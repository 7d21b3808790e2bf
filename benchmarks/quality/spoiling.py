"""Spoils uint8 pictures `[H, W, 3]` in known ways, to see what a measure makes of it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur with a standard deviation of `radius` pixels."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def enlarged(picture: np.ndarray, times: float) -> np.ndarray:
    """What is left when the picture is enlarged (bicubic) from one that many times smaller per side."""
    image = Image.fromarray(picture)
    small = image.resize(
        (max(1, round(image.width / times)), max(1, round(image.height / times))), Image.Resampling.BOX
    )
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def noisy(picture: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Independent noise with that standard deviation in 1/255."""
    return np.clip(picture + rng.normal(0, amount, picture.shape), 0, 255).round().astype(np.uint8)
