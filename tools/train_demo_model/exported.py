"""Reads a model that `export` wrote, to train it further."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

NAME = "emoji-sd"
PREFIXES = {
    "unet": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text": "cond_stage_model.transformer.",
}
"""Of the parts' weights in the checkpoint."""


@dataclass(frozen=True)
class Exported:
    """The state dicts of the parts, in float32, and the factor that scales latents."""

    unet: dict[str, torch.Tensor]
    autoencoder: dict[str, torch.Tensor]
    text: dict[str, torch.Tensor]
    scale_factor: float


def read_exported(folder: Path) -> Exported:
    """The model in `folder`."""
    weights = load_file(folder / f"{NAME}.safetensors")
    parts = {
        part: {key.removeprefix(prefix): value.float() for key, value in weights.items() if key.startswith(prefix)}
        for part, prefix in PREFIXES.items()
    }
    config: Any = OmegaConf.load(folder / f"{NAME}.yaml")
    return Exported(**parts, scale_factor=config.model.params.scale_factor)
