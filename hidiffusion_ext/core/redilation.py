"""Re-dilation: a convolution that looks further around itself (ScaleCrafter, arXiv 2310.07702, section 3.2).

Pure functions. A factor d that is not whole is made of the next whole dilation D = ceil(d) on an input enlarged by
D / d; the output is brought back to the size the convolution would have given.
"""

from __future__ import annotations

import math
from typing import Any

from .geometry import geometry
from .sizes import Size

Factor = tuple[float, float]
"""(down, across)"""

LEAST = 2
"""A progressive factor does not shrink below this (official code)."""


def factor_at(factor: Factor, step: int, steps: int, *, progressive: bool) -> Factor:
    """The factor at a step of `steps` re-dilated ones: max(ceil(d * (steps - step) / steps), 2) if progressive."""
    if not progressive:
        return factor
    down, across = (d if d <= 1 else float(max(math.ceil(d * ((steps - step) / steps)), LEAST)) for d in factor)
    return down, across


def dilated_attributes(factor: Factor, reach: int = 1) -> dict[str, Any]:
    """What a 3x3 convolution with dilation 1 and padding 1 becomes: dilation D and padding `reach * D` per axis.

    Args:
        factor: The factor per axis.
        reach: Cells from the kernel's centre to its edge: 1 for 3x3, 2 for a dispersed 5x5 kernel.
    """
    down, across = math.ceil(factor[0]), math.ceil(factor[1])
    return geometry(dilation=(down, across), padding=(reach * down, reach * across))


def input_size(size: Size, factor: Factor) -> Size:
    """The size the input is brought to: enlarged by D / d per axis, rounded to the nearest cell."""
    height, width = (round(side * (math.ceil(d) / d)) for side, d in zip(size, factor))
    return height, width


def output_size(size: Size, stride: tuple[int, ...]) -> Size:
    """The size the convolution gives an input of this size without re-dilation."""
    return -(-size[0] // stride[0]), -(-size[1] // stride[1])
