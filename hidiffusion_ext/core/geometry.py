"""A convolution's geometry: what its attributes become, and whether it kept to them."""

from __future__ import annotations

from typing import Any

import torch

from .options import Refused
from .sizes import Size

OWN_WAY = "another extension computes a convolution in its own way"


def geometry(*, dilation: Size, padding: Size, **others: Any) -> dict[str, Any]:
    """The attributes of a convolution with a dilation and a padding, each (down, across), beside others.

    Circular ("tiling") convolutions keep their padding apart, and so does asymmetric tiling, axis by axis; it pads
    once it was used even where it is off.
    """
    down, across = padding
    return {
        **others,
        "dilation": dilation,
        "padding": padding,
        "_reversed_padding_repeated_twice": [across, across, down, down],
        "paddingX": (across, across, 0, 0),
        "paddingY": (0, 0, down, down),
    }


def kept_to(x: torch.Tensor, size: Size) -> torch.Tensor:
    """A convolution's output [B, C, h, w], if its size is that of the geometry it was given.

    Raises:
        Refused: if it is another one, as of a convolution that another extension computes with a geometry of its own.
    """
    if tuple(x.shape[-2:]) != tuple(size):
        raise Refused(OWN_WAY)
    return x
