"""How many objects a picture shows: the connected parts of what differs from its background."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .background import Background

SALIENT = 0.15
"""RGB distance (components in 0..1) from the background that makes a pixel part of an object; the renderer keeps 0.35
between the background and the mean of an object's rim."""

NOISES = 5.0
"""The same in spreads of the background's own distance, for uneven backgrounds; the larger of the two counts."""

MERGE = 0.02
"""Parts nearer than twice this share of the picture's side (square root of the area) are one object: what belongs to
one emoji by nature (steam over a cup, a string of a balloon) is rarely further apart."""

SMALLEST = 0.01
"""Parts below this share of the picture's area are no objects."""

SMALLEST_OF_LARGEST = 0.12
"""Nor are parts below this share of the largest part's area: crumbs of a broken object."""


def object_mask(background: Background) -> np.ndarray:
    """Pixels that differ from the background, bool `[h, w]` at work size: opened by one pixel, holes filled."""
    mask = background.distance > max(SALIENT, NOISES * background.noise)
    mask = ndimage.binary_opening(mask, ndimage.generate_binary_structure(2, 1))
    return np.asarray(ndimage.binary_fill_holes(mask))


def label_objects(background: Background) -> np.ndarray:
    """The objects of the picture with this background: int `[h, w]` at work size, 0 background, 1.. the objects."""
    mask = object_mask(background)
    thick = ndimage.binary_dilation(mask, _disc(MERGE * mask.size**0.5))
    near, count = ndimage.label(thick, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    labels = np.where(mask, near, 0)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = areas >= max(SMALLEST * mask.size, SMALLEST_OF_LARGEST * areas.max())
    numbers = np.where(kept, np.cumsum(kept), 0)
    return numbers[labels]


def count_objects(background: Background) -> int:
    """How many objects the picture with this background shows."""
    return int(label_objects(background).max())


def _disc(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return x**2 + y**2 <= radius**2
