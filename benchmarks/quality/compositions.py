"""Real pictures with a known number of objects, to test the counter and to train the classifier on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from tools.train_demo_model.data import MIN_CONTRAST, OBJECT_SIDE, Glyph

GAP = 0.05
"""Usual least distance between the boxes of two objects, as a share of the shorter side."""

SHARES = {1: OBJECT_SIDE, 2: (0.3, 0.45), 4: (0.25, 0.4)}
"""Number of objects -> longer side of each as a share of the picture's shorter side; 1 as the renderer does it."""

COLOUR_TRIES = 1000
PLACE_TRIES = 200

Box = tuple[int, int, int, int]


def compose(
    glyphs: Sequence[Glyph],
    size: tuple[int, int],
    share: tuple[float, float],
    rng: np.random.Generator,
    gap: float = GAP,
) -> np.ndarray:
    """Draws one picture with every glyph once, apart from each other, on a plain or gradient background.

    Args:
        glyphs: What to draw.
        size: (height, width) in pixels.
        share: Range of each object's longer side as a share of the picture's shorter side.
        rng: Where all chance comes from.
        gap: Least distance between the boxes of two objects, as a share of the shorter side.

    Returns:
        uint8 `[height, width, 3]`.
    """
    while (boxes := _places(glyphs, size, share, rng, gap * min(size))) is None:
        pass
    rims = np.stack([glyph.rim for glyph in glyphs])
    picture = Image.fromarray((_background(rims, size, rng) * 255).round().astype(np.uint8))
    for glyph, (left, top, right, bottom) in zip(glyphs, boxes, strict=True):
        scaled = glyph.image.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        picture.paste(scaled, (left, top), scaled)
    return np.asarray(picture)


def worn(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture a little blurred and noisy, about as an autoencoder returns it; uint8 `[H, W, 3]`."""
    scale = picture.shape[0] / 128
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.0) * scale))
    noise = rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(np.asarray(soft) + noise, 0, 255).round().astype(np.uint8)


def _places(
    glyphs: Sequence[Glyph], size: tuple[int, int], share: tuple[float, float], rng: np.random.Generator, gap: float
) -> list[Box] | None:
    """Boxes (left, top, right, bottom) with at least `gap` between any two, in pixels; None if they do not fit."""
    height, width = size
    boxes: list[Box] = []
    for glyph in glyphs:
        factor = rng.uniform(*share) * min(size) / max(glyph.image.size)
        w, h = (max(1, round(side * factor)) for side in glyph.image.size)
        for _ in range(PLACE_TRIES):
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            box = left, top, left + w, top + h
            if all(_distance(box, other) >= gap for other in boxes):
                boxes.append(box)
                break
        else:
            return None
    return boxes


def _distance(a: Box, b: Box) -> float:
    """Distance of two boxes in pixels, the larger of the two axes' gaps."""
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


def _background(rims: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One colour or (half of the time) a linear gradient of two, float `[height, width, 3]` in 0..1."""
    first = _colour(rims, rng)
    second = _colour(rims, rng) if rng.random() < 0.5 else first
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None, :]
    ramp = np.cos(angle) * x + np.sin(angle) * y
    weight = (ramp - ramp.min()) / np.ptp(ramp)
    return first + weight[..., None] * (second - first)


def _colour(rims: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour in 0..1 that stands off from every rim colour `[n, 3]` (from most, if none does from all)."""
    colours = rng.uniform(0.1, 0.95, (COLOUR_TRIES, 3))
    nearest = np.linalg.norm(colours[:, None] - rims[None], axis=2).min(axis=1)
    enough = np.flatnonzero(nearest >= MIN_CONTRAST)
    return colours[enough[0] if enough.size else nearest.argmax()]
