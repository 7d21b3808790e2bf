"""ControlNet's residuals, on hosts that hand them to the UNet in its argument `control` (the Forge family).

Such a UNet takes residuals from the ends of three lists and adds them as they are: `input` ones to what its input
blocks put out, one `middle` one to what its middle block puts out, `output` ones to the skip connections. They were
made for the sizes an unchanged UNet has; while RAU-Net is active the features are smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .resizing import bicubic
from .sizes import FeatureSizes, Size
from .unet_map import BORDERED, Axes

Residuals = Sequence[torch.Tensor | None]


def fit_residuals(
    control: Mapping[str, Residuals], sizes: FeatureSizes, seamless: Axes = BORDERED
) -> dict[str, Residuals]:
    """The residuals in the sizes of this call, in new lists: the host's own stay as they are.

    Args:
        control: Lists of residuals [B, C, h, w] by name, each used from its end; None stands for no residual.
        sizes: The sizes inside this call.
        seamless: The axes along which the picture goes on at its other edge.
    """
    met = {"input": sizes.skips, "middle": sizes.skips[-1:], "output": sizes.skips[::-1]}
    return {name: _fitted(each, met[name], seamless) if name in met else each for name, each in control.items()}


def _fitted(residuals: Residuals, sizes: Sequence[Size], seamless: Axes) -> list[torch.Tensor | None]:
    """The last residual in the first size, the one before it in the second, and so on (bicubic, as in the official
    code)."""
    met = zip(reversed(residuals), sizes)
    return [None if residual is None else bicubic(residual, size, seamless) for residual, size in met][::-1]
