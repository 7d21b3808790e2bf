"""Stable Diffusion's autoencoder in full size with random weights: what pictures cost, beside the UNet."""

from __future__ import annotations

from typing import Any

import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from torch import nn

from fused_attention import use_fused_attention
from hidiffusion_ext.core.sizes import CELL

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


class Autoencoder(nn.Module):
    """Decodes latents and encodes pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(**STRUCTURE), Decoder(**STRUCTURE)
        use_fused_attention(self)
        self.eval().requires_grad_(False)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """A picture `[B, 3, 8H, 8W]` of a latent `[B, 4, H, W]`."""
        return self.decoder(latent)

    def encode_size_of(self, latent: torch.Tensor) -> torch.Tensor:
        """The work of encoding a picture of a latent's size."""
        height, width = latent.shape[-2:]
        return self.encoder(latent.new_zeros(len(latent), 3, CELL * height, CELL * width))
