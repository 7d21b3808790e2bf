"""Stable Diffusion's autoencoder in full size with random weights: what pictures cost, beside the UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from torch import nn

from fused_attention import use_fused_attention
from hidiffusion_ext.core.sizes import CELL

DECODE, DECODE_NATIVE, ENCODE = "decode", "decode native", "encode"
"""What is timed of the autoencoder: a large picture, and what lies between a native one and a large one."""

STRUCTURE: dict[str, Any] = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
"""The published dimensions, those of SD1.5 and of SDXL."""

TILE = 128
"""Cells a side that go through at once. Larger pictures want tens of GiB, and on processors PyTorch's slow convolution.
WebUIs have a tiled mode for them, too, with tiles that overlap, which costs a little more."""


class Autoencoder(nn.Module):
    """Decodes latents and encodes pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(**STRUCTURE), Decoder(**STRUCTURE)
        use_fused_attention(self)
        self.eval().requires_grad_(False)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """A picture `[B, 3, 8H, 8W]` of a latent `[B, 4, H, W]`."""
        return _in_tiles(latent, self.decoder)

    def encode_size_of(self, latent: torch.Tensor) -> torch.Tensor:
        """The work of encoding a picture of a latent's size."""

        def encode(tile: torch.Tensor) -> torch.Tensor:
            height, width = tile.shape[-2:]
            return self.encoder(tile.new_zeros(len(tile), 3, CELL * height, CELL * width))

        return _in_tiles(latent, encode)


def _in_tiles(latent: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What `work` makes of the tiles of a latent, side by side."""
    rows = [[work(tile) for tile in row.split(TILE, -1)] for row in latent.split(TILE, -2)]
    return torch.cat([torch.cat(row, -1) for row in rows], -2)
