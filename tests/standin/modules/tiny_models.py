"""Small random models with the structure of SD1 and SDXL; the UNet is a real ldm `UNetModel`.

Not the host's code: on the host this comes out of a checkpoint file. Everything is a function of a seed.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import torch
from torch import Tensor, nn

from hidiffusion_ext.core import Family
from ldm_unet import Shape, ldm_unet

CONTEXT = 32
CONFIGS = {
    "sd1": Shape(Family.SD1, (32, 64, 64, 64), CONTEXT, (2, 2, 2, 2)),
    "sdxl": Shape(Family.SDXL, (32, 64, 128), CONTEXT, (2, 4, 8), depth=1, deep=2),  # 2 and 10 in the real one
}


class DiffusionWrapper(nn.Module):
    """Calls the UNet the way ldm does, `u(x, t, context=)`, or sgm, `u(x, timesteps=, context=, y=)`."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x: Tensor, t: Tensor, cond: dict) -> Tensor:
        if "vector" in cond:
            return self.diffusion_model(x, timesteps=t, context=cond["crossattn"], y=cond["vector"])
        return self.diffusion_model(x, t, context=torch.cat(cond["c_crossattn"], 1))


@lru_cache(4096)
def _embedding(token: str) -> Tensor:
    return torch.randn(CONTEXT, generator=torch.Generator().manual_seed(zlib.crc32(token.encode())))


def _encode(prompt: str, length: int) -> Tensor:
    """Each word's own vector plus a small trace of its position: `[length, CONTEXT]`."""
    words = prompt.split()
    tokens = ["<start>", *words, *["<end>"] * (length - 1 - len(words))]
    return torch.stack([_embedding(word) + 0.1 * _embedding(str(i)) for i, word in enumerate(tokens)])


class LatentDiffusion(nn.Module):
    """The parts of the host's model that samplers and extensions touch.

    In place of an autoencoder: a linear map between 4 latent and 3 image channels, and nearest scaling by 8.
    """

    parameterization = "eps"
    sd_checkpoint_info = sd_model_hash = None  # set by sd_models

    def __init__(self, config: str):
        super().__init__()
        self.is_sdxl = config == "sdxl"
        self.model = DiffusionWrapper(build_unet(config))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0).float())
        to_rgb = torch.tensor([[0.4, 0.2, 0.1, -0.1], [0.1, 0.4, -0.2, 0.2], [-0.2, 0.1, 0.4, 0.3]])
        self.register_buffer("to_rgb", to_rgb)
        self.cond_stage_model_empty_prompt = _encode("", 77)[None]

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: dict) -> Tensor:
        return self.model(x_noisy, t.to(x_noisy.dtype), cond)

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """`[B, 4, h, w]` -> `[B, 3, 8h, 8w]`"""
        return nn.functional.interpolate(torch.einsum("dc,bchw->bdhw", self.to_rgb, z), scale_factor=8, mode="nearest")

    def encode_first_stage(self, x: Tensor) -> Tensor:
        """`[B, 3, 8h, 8w]` -> `[B, 4, h, w]`"""
        return torch.einsum("dc,bchw->bdhw", torch.linalg.pinv(self.to_rgb), nn.functional.avg_pool2d(x, 8))

    def get_learned_conditioning(self, prompts: list[str]) -> Tensor | dict[str, Tensor]:
        """`[B, 77 * n, C]`, where n is the number of 75-word chunks of the longest prompt."""
        chunks = max(max(1, math.ceil(len(prompt.split()) / 75)) for prompt in prompts)
        cond = torch.stack([_encode(prompt, 77 * chunks) for prompt in prompts])
        if not self.is_sdxl:
            return cond
        return {"crossattn": cond, "vector": torch.stack([_embedding(prompt) for prompt in prompts])}


def build_unet(config: str, seed: int = 0) -> nn.Module:
    """A random UNet; a self-attention has no forward of its own, as on the host, which changes the class's."""
    unet, width = ldm_unet(CONFIGS[config], seed=seed), 4 * CONFIGS[config].channels[0]
    for module in unet.modules():
        vars(module).pop("forward", None)
    if config == "sdxl":  # and its pooled conditioning
        unet.num_classes, unet.label_emb = 1, nn.Linear(CONTEXT, width, bias=False)
        nn.init.eye_(unet.label_emb.weight)
    return unet.eval().requires_grad_(False)


@lru_cache(8)
def weights(config: str, seed: int) -> dict[str, Tensor]:
    """Those of a checkpoint's UNet."""
    return build_unet(config, seed).state_dict()
