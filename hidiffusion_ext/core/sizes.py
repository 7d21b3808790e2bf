"""Sizes: of pictures in latent cells, and of the feature maps inside a call of the UNet.

A size is (height, width). Every reduction rounds up, as a padded strided convolution does.
"""

from __future__ import annotations

from typing import NamedTuple

from .unet_map import UNetMap

Size = tuple[int, int]

CELL = 8
"""Pixels per latent cell and side."""


class FeatureSizes(NamedTuple):
    """The sizes inside one UNet call.

    Attributes:
        inside: Per input block, the size its layers work at (after its downsampler, before its pool).
        skips: Per input block, the size of the skip connection it leaves.
    """

    inside: tuple[Size, ...]
    skips: tuple[Size, ...]


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
