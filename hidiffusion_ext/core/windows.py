"""MSW-MSA: modified shifted window multi-head self-attention (HiDiffusion, arXiv 2311.17528, section 3.3).

A feature map is cut into 2x2 windows of a quarter of the tokens each, after rolling it by a quarter, a half or
three quarters of a window. Pure functions; a size is (height, width) in latent cells of the level.
"""

from __future__ import annotations

import torch
from einops import rearrange

from .arithmetic import table
from .resizing import bicubic
from .sizes import Size
from .unet_map import BORDERED, Axes

SHIFTS = 4
"""The grid is rolled by 0, 1/4, 2/4 or 3/4 of a window."""


def even_size(size: Size) -> Size:
    """The smallest even size that holds `size`: twice the window."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def window_shift(size: Size, index: int) -> Size:
    """The roll in cells for shift `index` (0 to 3): the window side divided by 4, rounded down, times the index."""
    height, width = even_size(size)
    return height // 2 // SHIFTS * index, width // 2 // SHIFTS * index


def cycle_index(step: int, site: int) -> int:
    """The deterministic choice: each site goes through all shifts in turn, neighbouring sites out of phase."""
    return (step + site) % SHIFTS


def random_index(generator: torch.Generator) -> int:
    """The paper's choice: each shift with equal probability, drawn anew for every site and step.

    The bounds are those of the official code, which draws one `torch.rand(1)` and compares with .25, .5 and .75.
    """
    draw = float(torch.rand(1, generator=generator))
    return 0 if draw <= 0.25 else 1 if draw <= 0.5 else 2 if draw <= 0.75 else 3


def window_partition(x: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Cuts tokens into windows: [B, H*W, C] -> [4*B, h*w, C] with h, w = half the even size.

    An odd side is first resized to even (bicubic), as in the official code.
    """
    even = even_size(size)
    x = _resize(x, size, even, seamless)
    order, _ = _orders(even, shift, x.device)
    return x.index_select(1, order).reshape(4 * len(x), -1, x.shape[-1])


def window_reverse(windows: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Puts windows back: [4*B, h*w, C] -> [B, H*W, C]; undoes `window_partition` exactly where both sides are even."""
    even = even_size(size)
    _, inverse = _orders(even, shift, windows.device)
    x = windows.reshape(len(windows) // 4, -1, windows.shape[-1]).index_select(1, inverse)
    return _resize(x, even, size, seamless)


@table
def _orders(size: Size, shift: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of an even map's tokens in its rolled windows, and the order that puts them back: [H*W] each.

    One indexed copy cuts and rolls at once, in about a third of the time of rolling and then cutting.
    """
    tokens = torch.arange(size[0] * size[1], device=device).view(size)
    rolled = tokens.roll((-shift[0], -shift[1]), (0, 1))
    order = rearrange(rolled, "(ny h) (nx w) -> (ny nx h w)", ny=2, nx=2)
    return order, order.argsort()


def _resize(x: torch.Tensor, source: Size, target: Size, seamless: Axes) -> torch.Tensor:
    if source == target:
        return x
    x = rearrange(x, "b (h w) c -> b c h w", h=source[0])
    x = bicubic(x, target, seamless)
    return rearrange(x, "b c h w -> b (h w) c")
