"""The three networks of the demo model, built from ldm's and transformers' own classes, and their dimensions.

The same dictionaries build the networks here and fill the checkpoint's yaml, so that the two cannot differ.
"""

from __future__ import annotations

from typing import Any

import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

LATENT_CHANNELS = 4
FACTOR = 8  # pixels per latent cell and axis
TOKENS = 77
VOCABULARY = 49408  # CLIP's byte-pair vocabulary with its start and end tokens
CONTEXT_WIDTH = 32

AUTOENCODER: dict[str, Any] = {
    "double_z": True,
    "z_channels": LATENT_CHANNELS,
    "resolution": 128,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 64,  # two channels per group of GroupNorm(32): with one, each channel loses its mean and with it the colour
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}

UNET: dict[str, Any] = {
    "image_size": 16,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": 32,  # a weak finest level: see coarse_first.py
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 4, 4, 4],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": CONTEXT_WIDTH,
    "use_checkpoint": False,
    "legacy": False,
}

TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": CONTEXT_WIDTH,
    "intermediate_size": 4 * CONTEXT_WIDTH,
    "projection_dim": CONTEXT_WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": TOKENS,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    # The values of OpenAI's own config: with 2, transformers takes the position of the largest token id as the end.
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}


class Autoencoder(nn.Module):
    """ldm's KL autoencoder without its training loop; the state-dict keys are those of `AutoencoderKL`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(**AUTOENCODER)
        self.decoder = Decoder(**AUTOENCODER)
        self.quant_conv: Any = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv: Any = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        # Start with little noise in the latents: at the default log variance of 0 it drowns the untrained means.
        nn.init.constant_(self.quant_conv.bias[LATENT_CHANNELS:], -6.0)
        self._keep_levels()
        self._start_as_thumbnail()

    @torch.no_grad()
    def _keep_levels(self) -> None:
        """Starts the second channel of each normalisation group (two channels) as a constant reference.

        GroupNorm takes a group's mean over space away: a plain background would lose its colour in every block. With
        channels (a, 2) the mean is (mean(a) + 2) / 2 and the deviation about 1, so a becomes a - mean(a) / 2 - 1 and
        the other 1 - mean(a) / 2. The biases set here take the ones back: what goes in comes out, level included.
        """
        modules: dict[str, Any] = dict(self.named_modules())
        for name, module in modules.items():
            if name.endswith("conv_in"):
                module.weight[0::2] *= 3
                module.weight[1::2] = 0
                module.bias[0::2] = 0
                module.bias[1::2] = 2
            elif name.endswith(("downsample.conv", "upsample.conv")):
                nn.init.dirac_(module.weight)
                nn.init.zeros_(module.bias)
            elif name.endswith(("conv2", "proj_out")):
                module.weight[0::2] *= 0.15
                module.weight[1::2] = 0
                nn.init.zeros_(module.bias)
            elif name.endswith(("norm1", "norm_out", "norm")):
                module.bias[0::2] = 1
                module.bias[1::2] = -1

    @torch.no_grad()
    def _start_as_thumbnail(self) -> None:
        """Lets the first three latents begin as the picture's colours at an eighth of its size, and back.

        Started at random, training first loses one dimension of colour and takes most of its time to find it again.
        Channels 0, 2 and 4 carry red, green and blue; around an output's SiLU, about half of identity for small
        values, a colour is twice the difference of its channel and the channel of its reference.
        """
        networks: tuple[Any, ...] = (self.encoder, self.decoder)
        for network in networks:
            for colour in range(3):
                network.conv_in.weight[2 * colour] = 0
                network.conv_in.weight[2 * colour, colour, 1, 1] = 1
                network.conv_out.weight[colour] = 0
                network.conv_out.weight[colour, 2 * colour, 1, 1] = 2
                network.conv_out.weight[colour, 2 * colour + 1, 1, 1] = -2
                network.conv_out.bias[colour] = 0
        self.encoder.conv_out.weight[LATENT_CHANNELS:] *= 0.1
        nn.init.dirac_(self.quant_conv.weight)
        nn.init.dirac_(self.post_quant_conv.weight)
        nn.init.zeros_(self.post_quant_conv.bias)

    def encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures `[B, 3, H, W]` in -1..1 -> mean and log variance of the latents, each `[B, 4, H/8, W/8]`."""
        mean, log_variance = self.quant_conv(self.encoder(pictures)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[B, 4, H/8, W/8]` (unscaled) -> pictures `[B, 3, H, W]`, about -1..1."""
        return self.decoder(self.post_quant_conv(latents)).float()


def build_unet() -> UNetModel:
    """A fresh ldm UNet: `(x [B, 4, h, w], timesteps [B], context=[B, 77, width]) -> [B, 4, h, w]`."""
    return UNetModel(**UNET)


def build_text_encoder() -> CLIPTextModel:
    """A fresh CLIP text encoder; the SD1 key prefix `cond_stage_model.transformer.` fits its state dict."""
    return CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))


def count_parameters(module: nn.Module) -> float:
    """Number of weights in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
