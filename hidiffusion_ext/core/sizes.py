"""Sizes: of pictures in latent cells, and of the feature maps inside a call of the UNet.

A size is (height, width). Every reduction rounds up, as a padded strided convolution does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .unet_map import UNetMap

Size = tuple[int, int]

CELL = 8
"""Pixels per latent cell and side."""


AREA_BETWEEN = 0.8, 1.25
"""How far the area of a smaller size may be from the one it is to have, so that it has the aspect it is to have."""


@dataclass(frozen=True)
class Sizing:
    """What gives the feature maps in a call of the UNet their sizes.

    Attributes:
        latent: What the UNet is called with.
        native: Whether that is the model's native size, where it needs no help.
        strides: Input blocks whose downsampler has another stride than 2, with it.
        pools: Input blocks whose output is pooled, with the cells a side that become one.
    """

    latent: Size
    native: bool = False
    strides: Mapping[int, int] = field(default_factory=dict[int, int])
    pools: Mapping[int, int] = field(default_factory=dict[int, int])


class FeatureSizes(NamedTuple):
    """The sizes inside one UNet call.

    Attributes:
        inside: Per input block, the size its layers work at (after its downsampler, before its pool).
        skips: Per input block, the size of the skip connection it leaves.
        native: Whether the UNet is called at its native size.
        changed: Whether they are others than those of the pass's own latent.
    """

    inside: tuple[Size, ...]
    skips: tuple[Size, ...]
    native: bool = False
    changed: bool = False


def resized(size: Size, area: float, *, tolerance: float, multiples: Sequence[int] = (1,)) -> Size:
    """The size in cells with the aspect of another one, if that is possible, and most nearly `area`.

    Args:
        size: The one with the aspect, in any unit.
        area: Height times width, in cells.
        tolerance: By how much an aspect may be off and still be the same: 0.02 for two per cent.
        multiples: Of how many cells both sides are: the first with which there is such a size, otherwise the last.
    """
    low, high = (share * area for share in AREA_BETWEEN)

    def error(found: Size) -> tuple[float, int, float, int]:
        cells = math.prod(found)
        off = abs(math.log(cells / area))
        return 0.0 if low <= cells <= high else off, round(stretched(found, size) / (2 * tolerance)), off, min(found)

    nearest = [min(_of_about(size, high, multiple), key=error) for multiple in multiples]
    has_both = (found for found in nearest if error(found)[0] == 0 and stretched(found, size) <= tolerance)
    return next(has_both, nearest[-1])


def _of_about(size: Size, most: float, multiple: int) -> Iterator[Size]:
    """The sizes in multiples of cells, up to an area of about `most`, next to the aspect of another one.

    For either side the two of the other that are nearest, so that a picture on its side gets the same on its side.
    """
    for side, other, is_width in ((size[1], size[0], True), (size[0], size[1], False)):
        longest = math.sqrt(most * side / other) / multiple + side / other
        for length in range(1, math.ceil(longest) + 1):
            for across in {max(1, length * other // side), -(-length * other // side)}:
                yield (across * multiple, length * multiple) if is_width else (length * multiple, across * multiple)


def stretched(size: Size, other: Size) -> float:
    """By how much the aspects of two sizes differ, as a logarithm: 0.02 for two per cent."""
    return abs(math.log(size[1] * other[0]) - math.log(size[0] * other[1]))


def feature_sizes(unet_map: UNetMap, sizing: Sizing, *, changed: bool = False) -> FeatureSizes:
    """The sizes inside a call of the UNet.

    Args:
        unet_map: The UNet's blocks.
        sizing: What gives them.
        changed: Whether that is another than the pass's own.
    """
    size, inside, skips = sizing.latent, list[Size](), list[Size]()
    for index, block in enumerate(unet_map.inputs):
        if block.down:
            size = _divided(size, sizing.strides.get(index, 2))
        inside.append(size)
        size = _divided(size, sizing.pools.get(index, 1))
        skips.append(size)
    return FeatureSizes(tuple(inside), tuple(skips), sizing.native, changed)


def _divided(size: Size, by: int) -> Size:
    return -(-size[0] // by), -(-size[1] // by)
