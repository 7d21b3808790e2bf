"""Sizes: of pictures in latent cells, and of the feature maps inside a call of the UNet.

A size is (height, width). Every reduction rounds up, as a padded strided convolution does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .unet_map import UNetMap

Size = tuple[int, int]

CELL = 8
"""Pixels per latent cell and side."""


AREA_BETWEEN = 0.8, 1.25
"""How far the area of a smaller size may be from the one it is to have, so that it has the aspect it is to have."""


class FeatureSizes(NamedTuple):
    """The sizes inside one UNet call.

    Attributes:
        inside: Per input block, the size its layers work at (after its downsampler, before its pool).
        skips: Per input block, the size of the skip connection it leaves.
    """

    inside: tuple[Size, ...]
    skips: tuple[Size, ...]


def resized(size: Size, area: float, *, tolerance: float, multiple: int = 1) -> Size | None:
    """The size with the aspect of another one, if that is possible, and most nearly `area`.

    Args:
        size: The one with the aspect, in any unit.
        area: Height times width, in cells.
        tolerance: By how much an aspect may be off and still be the same: 0.02 for two per cent.
        multiple: Of how many cells both sides are.

    Returns:
        The size in cells; None if none of such multiples has about that area.
    """
    aspect = size[1] / size[0]
    low, high = (share * area for share in AREA_BETWEEN)
    widest = math.ceil(math.sqrt(high * aspect) + multiple * aspect)
    sizes = [
        (height, width)
        for width in range(multiple, widest + multiple, multiple)
        for height in {max(multiple, round(width / aspect / multiple + nudge) * multiple) for nudge in (-0.5, 0.5)}
        if low <= height * width <= high
    ]

    def error(found: Size) -> tuple[int, float]:
        return round(stretched(found, size) / (2 * tolerance)), abs(math.log(math.prod(found) / area))

    return min(sizes, key=error, default=None)


def stretched(size: Size, other: Size) -> float:
    """By how much the aspects of two sizes differ, as a logarithm: 0.02 for two per cent."""
    return abs(math.log(size[1] / size[0] * other[0] / other[1]))


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


def _reduced(size: Size, factor: int) -> Size:
    return -(-size[0] // factor), -(-size[1] // factor)
