"""HyperTile, as a reference: the idea of tfernd's HyperTile (2023), for the benchmark only.

Each self-attention of the finest level looks at tiles of the picture, each by itself, at every step. The tiles do not
move.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from einops import rearrange
from torch import nn

from hidiffusion_ext.core import UNetMap
from hidiffusion_ext.core.patching import change_input, change_output
from hidiffusion_ext.core.sizes import Size

TILE = 256
"""The usual longest side of a tile in pixels, half of SD1.5's native side."""


@contextmanager
def hyper_tile(unet: nn.Module, unet_map: UNetMap, latent: Size, tile: int) -> Generator[None, None, None]:
    """Patches the UNet while the context is open; leaves it as it was. Latents of another size go through whole.

    Args:
        latent: Height and width of the latent in cells.
        tile: The longest side of a tile in cells of the latent; the longest that divides a side is taken.
    """
    sites = unet_map.finest_attentions
    level = unet_map.level(sites[0].block)
    height, width = (side >> level for side in latent)
    h, w = (_largest_divisor(side, tile >> level) for side in (height, width))

    whole = False

    def cut(x: torch.Tensor) -> torch.Tensor:
        nonlocal whole
        whole = x.shape[1] != height * width
        return x if whole else rearrange(x, "b (ny h nx w) c -> (b ny nx) (h w) c", nx=width // w, h=h, w=w)

    def put_back(x: torch.Tensor) -> torch.Tensor:
        return x if whole else rearrange(x, "(b ny nx) (h w) c -> b (ny h nx w) c", ny=height // h, nx=width // w, w=w)

    with ExitStack() as stack:
        for site in sites:
            attention = unet.get_submodule(site.name)
            change_input(stack, attention, cut)
            change_output(stack, attention, put_back)
        yield


def _largest_divisor(side: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if side % divisor == 0)
