"""Writes the trained model as one Stable Diffusion 1 checkpoint with its yaml, tokenizer, labels and checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from .common import Run
from .data import Glyph
from .diffusion import LINEAR_END, LINEAR_START, TIMESTEPS, alphas_cumprod, betas
from .exported import NAME, PREFIXES
from .model import AUTOENCODER, LATENT_CHANNELS, TOKENS, UNET
from .text import write_tokenizer
from .unet import load_trained

MAX_BYTES = 32_000_000
DROPPED_BITS = 4
"""Of the ten of half precision's mantissa."""

# The WebUI looks up the text encoder's folder from its own working directory.
TEXT_ENCODER_PATH = "extensions/sd-webui-hidiffusion/demo/text_encoder"


def export(run: Run, glyphs: list[Glyph], folder: Path) -> Path:
    """Writes everything a WebUI and the demo need into `folder`; returns the checkpoint's path."""
    model, autoencoder, scale_factor = load_trained(run)
    parts = {"unet": model.unet, "autoencoder": autoencoder, "text": model.text}
    weights = {
        PREFIXES[part] + key: _rounded(value.detach().cpu())
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }
    # The schedule stays in float32: in half precision the first betas and the last products lose most digits.
    weights["betas"] = betas().float()
    weights["alphas_cumprod"] = alphas_cumprod().float()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; the repository allows {MAX_BYTES}.")
    OmegaConf.save(OmegaConf.create(_config(scale_factor)), folder / f"{NAME}.yaml")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / f"{NAME}.sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    (folder / "labels.txt").write_text("".join(f"{glyph.caption}\n" for glyph in glyphs), encoding="utf-8")
    write_tokenizer(folder / "text_encoder")
    return path


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    """Half precision with the last bits zero: the file packs to two thirds, the pictures do not change visibly."""
    half = weight.half().contiguous()
    bits = half.view(torch.int16).to(torch.int32)
    return (bits + (1 << DROPPED_BITS - 1) >> DROPPED_BITS << DROPPED_BITS).to(torch.int16).view(torch.float16)


def _config(scale_factor: float) -> dict[str, Any]:
    """The checkpoint's description in ldm's config format."""
    latent_diffusion = {
        "linear_start": LINEAR_START,
        "linear_end": LINEAR_END,
        "timesteps": TIMESTEPS,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": UNET["image_size"],
        "channels": LATENT_CHANNELS,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "monitor": "val/loss_simple_ema",
        "parameterization": "v",
        "scale_factor": round(scale_factor, 6),
        "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": UNET},
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": LATENT_CHANNELS,
                "monitor": "val/rec_loss",
                "ddconfig": AUTOENCODER,
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": TEXT_ENCODER_PATH, "max_length": TOKENS},
        },
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": latent_diffusion}}
