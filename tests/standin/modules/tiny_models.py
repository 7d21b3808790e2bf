"""Small random models with the structure of SD1 and SDXL; the UNet is a real ldm `UNetModel`.

Not the host's code: on the host this comes out of a checkpoint file. Everything is a function of a seed.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import ldm.modules.attention as attention
import ldm.modules.diffusionmodules.openaimodel as openaimodel
import torch
from torch import Tensor, nn

from fitted_skips import fit_skips

CONTEXT = 32
COMMON = dict(
    image_size=32,
    in_channels=4,
    out_channels=4,
    model_channels=32,
    num_res_blocks=2,
    use_spatial_transformer=True,
    context_dim=CONTEXT,
    use_checkpoint=False,
    legacy=False,
)
CONFIGS = {
    "sd1": dict(channel_mult=[1, 2, 2, 2], attention_resolutions=[4, 2, 1], num_heads=2),
    "sdxl": dict(
        channel_mult=[1, 2, 4],
        attention_resolutions=[4, 2],
        num_head_channels=16,
        use_linear_in_transformer=True,
        num_classes=1,
    ),
}
SDXL_DEPTH = {64: 1, 128: 2}  # transformer blocks by width; 2 and 10 in the real one
VECTOR = 16  # size of SDXL's pooled conditioning


fit_skips()


class DeepSpatialTransformer(attention.SpatialTransformer):
    """ldm's own cannot be deeper than one block: it wants a context per block."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x, [context] * len(self.transformer_blocks))


class DiffusionWrapper(nn.Module):
    """Calls the UNet the way ldm does, `u(x, t, context=)`, or sgm, `u(x, timesteps=, context=, y=)`."""

    conditioning_key = "crossattn"

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x: Tensor, t: Tensor, cond: dict) -> Tensor:
        if "vector" in cond:
            return self.diffusion_model(x, timesteps=t, context=cond["crossattn"], y=cond["vector"])
        return self.diffusion_model(x, t, context=torch.cat(cond["c_crossattn"], 1))


class FirstStage(nn.Module):
    """A linear map between 4 latent and 3 image channels, and nearest scaling by 8."""

    def __init__(self) -> None:
        super().__init__()
        to_rgb = torch.tensor([[0.4, 0.2, 0.1, -0.1], [0.1, 0.4, -0.2, 0.2], [-0.2, 0.1, 0.4, 0.3]])
        self.register_buffer("to_rgb", to_rgb)
        self.register_buffer("to_latent", torch.linalg.pinv(to_rgb))
        self.dtype = torch.float32

    def decode(self, z: Tensor) -> Tensor:
        """`[B, 4, h, w]` -> `[B, 3, 8h, 8w]`"""
        return nn.functional.interpolate(torch.einsum("dc,bchw->bdhw", self.to_rgb, z), scale_factor=8, mode="nearest")

    def encode(self, x: Tensor) -> Tensor:
        """`[B, 3, 8h, 8w]` -> `[B, 4, h, w]`"""
        return torch.einsum("dc,bchw->bdhw", self.to_latent, nn.functional.avg_pool2d(x, 8))


@lru_cache(4096)
def _embedding(token: str, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(zlib.crc32(token.encode())))


class LatentDiffusion(nn.Module):
    """The parts of the host's model that samplers and extensions touch."""

    parameterization = "eps"

    def __init__(self, unet: nn.Module, is_sdxl: bool):
        super().__init__()
        self.is_sdxl, self.is_sd1 = is_sdxl, not is_sdxl
        self.model = DiffusionWrapper(unet)
        self.first_stage_model = FirstStage()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0).float())
        self.cond_stage_model_empty_prompt = self._encode("", 77)[None]
        self.sd_checkpoint_info = self.sd_model_checkpoint = self.sd_model_hash = self.used_config = (
            None  # sd_models.py
        )

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: dict) -> Tensor:
        return self.model(x_noisy, t.to(x_noisy.dtype), cond)

    def decode_first_stage(self, z: Tensor) -> Tensor:
        return self.first_stage_model.decode(z)

    def encode_first_stage(self, x: Tensor) -> Tensor:
        return self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, encoded: Tensor) -> Tensor:
        return encoded

    @staticmethod
    def _encode(prompt: str, length: int) -> Tensor:
        """Each word's own vector plus a small trace of its position: `[length, CONTEXT]`."""
        words = prompt.split()
        tokens = ["<start>", *words, *["<end>"] * (length - 1 - len(words))]
        return torch.stack([_embedding(w, CONTEXT) + 0.1 * _embedding(str(i), CONTEXT) for i, w in enumerate(tokens)])

    def get_learned_conditioning(self, prompts: list[str]) -> Tensor | dict[str, Tensor]:
        """`[B, 77 * n, C]`, where n is the number of 75-word chunks of the longest prompt."""
        chunks = max(max(1, math.ceil(len(prompt.split()) / 75)) for prompt in prompts)
        cond = torch.stack([self._encode(prompt, 77 * chunks) for prompt in prompts])
        if not self.is_sdxl:
            return cond
        return {"crossattn": cond, "vector": torch.stack([_embedding(prompt, VECTOR) for prompt in prompts])}


def build_unet(config: str) -> nn.Module:
    """A UNet with weights from torch's global generator."""
    unet = openaimodel.UNetModel(**COMMON, **CONFIGS[config])
    if config == "sdxl":
        size = COMMON["model_channels"] * 4
        unet.label_emb = nn.Sequential(nn.Sequential(nn.Linear(VECTOR, size), nn.SiLU(), nn.Linear(size, size)))
        for block in [*unet.input_blocks, unet.middle_block, *unet.output_blocks]:
            for i, layer in enumerate(block):
                if isinstance(layer, attention.SpatialTransformer):
                    block[i] = DeepSpatialTransformer(
                        layer.in_channels,
                        layer.in_channels // 16,
                        16,
                        depth=SDXL_DEPTH[layer.in_channels],
                        context_dim=[CONTEXT] * SDXL_DEPTH[layer.in_channels],
                        use_linear=True,
                        use_checkpoint=False,
                    )
    return unet.eval().requires_grad_(False)


def build(config: str) -> LatentDiffusion:
    return LatentDiffusion(build_unet(config), is_sdxl=config == "sdxl").eval()


@lru_cache(8)
def _weights(config: str, seed: int) -> dict[str, Tensor]:
    """Weights of a checkpoint: ldm's zero-initialised ones made random, the output scaled to about 0.7."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        unet = build_unet(config)
        for parameter in unet.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        y = {"y": torch.randn(1, VECTOR)} if config == "sdxl" else {}
        out = unet(torch.randn(1, 4, 16, 16), torch.tensor([500.0]), context=torch.randn(1, 77, CONTEXT), **y)
        unet.out[-1].weight.mul_(0.7 / out.std())
    return unet.state_dict()


def load_weights(model: LatentDiffusion, config: str, seed: int) -> None:
    """Copy a checkpoint's weights into the model's UNet object."""
    model.model.diffusion_model.load_state_dict(_weights(config, seed))
