"""The background of a picture, estimated from the picture itself, and how far each pixel is from it.

The demo model's backgrounds are plain colours or linear gradients, so each colour channel is a plane over the
picture's coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

WORK_SIDE = 128
"""Pictures are looked at on as many pixels as the model's native 128x128, whatever their size and aspect."""

BORDER = 0.06
"""Width of the border that the first estimate is made from, as a share of the shorter side."""

GUESSES = 200
"""Planes through three random border pixels that are tried."""

CLOSE = 0.06
"""Pixels nearer to the plane than this (RGB distance, components in 0..1) agree with it."""

REFINEMENTS = 6
SEED = 0


@dataclass(frozen=True)
class Background:
    """An estimated background.

    Attributes:
        picture: The picture at work size, float `[h, w, 3]` in 0..1.
        plane: The background at work size, float `[h, w, 3]`.
        coefficients: The same as a plane, `[3 terms, 3 channels]`: see `plane_terms`.
        distance: RGB distance of picture and plane, `[h, w]`.
        noise: Spread (robust standard deviation) of the distance over the background's own pixels.
    """

    picture: np.ndarray
    plane: np.ndarray
    coefficients: np.ndarray
    distance: np.ndarray
    noise: float


def work_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) with the same aspect and the area of `WORK_SIDE` squared, in pixels."""
    factor = WORK_SIDE / (height * width) ** 0.5
    return max(1, round(height * factor)), max(1, round(width * factor))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 picture `[H, W, 3]` at (height, width), float32 in 0..1; averaging when it shrinks."""
    image = Image.fromarray(picture)
    if picture.shape[:2] != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BOX if size[0] < picture.shape[0] else 2)
    return np.asarray(image, dtype=np.float32) / 255


def find_background(picture: np.ndarray) -> Background:
    """Estimates the background of a uint8 picture `[H, W, 3]`.

    The first estimate is the plane that most border pixels agree with, out of planes through three random border
    pixels each (RANSAC, Fischler and Bolles 1981); it is then fitted by least squares to all agreeing pixels of the
    picture, several times.
    """
    work = resized(picture, work_size(*picture.shape[:2]))
    smooth = ndimage.uniform_filter(work, (3, 3, 1))  # pyright: ignore[reportArgumentType]
    height, width, _ = work.shape
    terms = plane_terms(height, width)
    values = smooth.reshape(-1, 3)
    coefficients = _first_guess(terms, values, _border(height, width))
    for _ in range(REFINEMENTS):
        distance = np.linalg.norm(values - terms @ coefficients, axis=1)
        agreeing = terms * (distance < CLOSE)[:, None]
        coefficients = np.linalg.solve(agreeing.T @ terms, agreeing.T @ values)
    plane = (terms @ coefficients).reshape(work.shape)
    distance = np.linalg.norm(work - plane, axis=2)
    near = distance[distance < 2 * CLOSE]
    noise = float(1.4826 * np.median(near)) if near.size else CLOSE
    return Background(work, plane, coefficients, distance, noise)


def extended(picture: np.ndarray, aspect: float, place: float) -> np.ndarray:
    """A uint8 picture `[H, W, 3]` with its background continued to another aspect.

    Args:
        picture: What to extend.
        aspect: Height over width of the result; the axis that is too short for it grows, the other stays.
        place: Where the picture is on the longer axis: 0 first, 1 last.

    Returns:
        uint8 `[H', W', 3]`.
    """
    height, width, _ = picture.shape
    size = max(height, round(width * aspect)), max(width, round(height / aspect))
    top, left = round((size[0] - height) * place), round((size[1] - width) * place)
    y = (np.arange(size[0]) - top) / (height - 1) * 2 - 1
    x = (np.arange(size[1]) - left) / (width - 1) * 2 - 1
    background = _terms(y, x) @ find_background(picture).coefficients
    canvas = (background.reshape(*size, 3).clip(0, 1) * 255).round().astype(np.uint8)
    canvas[top : top + height, left : left + width] = picture
    return canvas


def plane_terms(height: int, width: int) -> np.ndarray:
    """What a plane is a sum of, per pixel in row order: 1, x and y in -1..1, `[height * width, 3]`."""
    return _terms(np.linspace(-1, 1, height), np.linspace(-1, 1, width))


def _terms(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([np.ones(y.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)


def _border(height: int, width: int) -> np.ndarray:
    """Flat indices of every third pixel of the picture's border."""
    margin = max(1, round(BORDER * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[margin:-margin, margin:-margin] = True
    return np.flatnonzero(~inside)[::3]


def _first_guess(terms: np.ndarray, values: np.ndarray, border: np.ndarray) -> np.ndarray:
    """The coefficients `[3 terms, 3 channels]` that most border pixels agree with."""
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(border, (GUESSES, 3))
    systems = terms[chosen]
    solvable = np.abs(np.linalg.det(systems)) > 0.05
    guesses = np.linalg.solve(systems[solvable], values[chosen[solvable]])
    errors = np.linalg.norm(terms[border] @ guesses - values[border], axis=2)
    return guesses[np.argmax((errors < CLOSE).sum(axis=1))]
