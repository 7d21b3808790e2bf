"""Dispersed convolution: a 3x3 kernel spread over 5x5 cells (ScaleCrafter, arXiv 2310.07702, section 3.3).

The larger kernel R k is linear in the kernel k. R is the least-squares solution of two sets of equations over all
inputs x of n x n cells with zero padding: at structure level `up(x) * (R k) = up(x * k)`, at pixel level, weighted by
eta, `x * (R k) = x * k`. Both are linear in R, so it is solved once, in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F

from ..arithmetic import single_precision, table

SMALL, LARGE = 3, 5

AT_ONCE = 128
"""Kernels of so many output channels are spread at once: in single precision all of them take twice the memory of what
they become in half precision."""


@table
def dispersion_transform(
    small: int = SMALL, large: int = LARGE, input_size: int = 3, scale: int = 2, eta: float = 0.05
) -> torch.Tensor:
    """The transform R: [large*large, small*small], float64; a kernel's cells are counted row by row.

    Args:
        small, large: Sides of the kernel before and after.
        input_size: n, the side of the inputs the equations are posed for.
        scale: How much `up` (bilinear, corners aligned) enlarges: n cells to scale * (n - 1) + 1.
        eta: Weight of the pixel-level equations (paper: 0.05).
    """
    n, enlarged = input_size, scale * (input_size - 1) + 1
    inputs = torch.eye(n * n, dtype=torch.float64).view(n * n, 1, n, n)
    kernels = torch.eye(small * small, dtype=torch.float64).view(small * small, 1, small, small)

    def up(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size=(enlarged, enlarged), mode="bilinear", align_corners=True)

    def neighbourhoods(x: torch.Tensor, side: int) -> torch.Tensor:
        """[N, 1, h, w] -> [N*h*w, side*side]: what a kernel of this side sees at each cell."""
        return F.unfold(x, side, padding=side // 2).transpose(1, 2).flatten(0, 1)

    answers = F.conv2d(inputs, kernels, padding=small // 2)
    large_answers = up(answers.flatten(0, 1).unsqueeze(1)).view(n * n, small * small, -1).transpose(1, 2).flatten(0, 1)
    left = torch.cat([neighbourhoods(up(inputs), large), eta * neighbourhoods(inputs, large)])
    right = torch.cat([large_answers, eta * neighbourhoods(inputs, small)])
    linalg = cast(Any, torch.linalg)
    return linalg.lstsq(left, right, driver="gelsd").solution  # gelsd: of all solutions the smallest


@table
def _transform_on(device: torch.device) -> torch.Tensor:
    """The transform on a device, in single precision."""
    return dispersion_transform().float().to(device)


def dispersed_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """[O, I, 3, 3] -> [O, I, 5, 5], in the kernel's dtype and on its device."""
    if kernel.dtype is torch.float32:
        return _spread(kernel)
    large = kernel.new_empty(*kernel.shape[:2], LARGE, LARGE)
    for first in range(0, len(kernel), AT_ONCE):
        few = slice(first, first + AT_ONCE)
        large[few] = _spread(kernel[few])
    return large


@single_precision
def _spread(kernel: torch.Tensor) -> torch.Tensor:
    return (kernel.flatten(2) @ _transform_on(kernel.device).T).reshape(*kernel.shape[:2], LARGE, LARGE)


class DispersedInput(torch.Tensor):
    """An input whose next convolution with a 3x3 kernel uses the dispersed kernel instead.

    It goes into the host's own convolution, which does what it always does (LoRA, casts, offloading, dequantising);
    only the kernel it finally convolves this tensor with is spread. Nothing outside the tensor is changed.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv2d:
            return cast(Any, super()).__torch_function__(func, types, args, dict(kwargs or {}))
        x, kernel, *rest = (unmarked(argument) for argument in args)
        if kernel.shape[2:] == (SMALL, SMALL):
            kernel = dispersed_kernel(kernel)
        return torch.conv2d(x, kernel, *rest, **{name: unmarked(value) for name, value in (kwargs or {}).items()})


def unmarked(value: Any) -> Any:
    """A tensor without the marking; anything else as it is."""
    return value.as_subclass(torch.Tensor) if isinstance(value, DispersedInput) else value


def dispersed_input(x: torch.Tensor) -> torch.Tensor:
    """Marks a convolution's input [B, C, H, W]; the data is shared."""
    return cast(torch.Tensor, x.as_subclass(DispersedInput))
