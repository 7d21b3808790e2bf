"""The latent cache: every training picture encoded once, so that a UNet step does not pay for the autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from .autoencoder import load_autoencoder
from .common import Run, load_checkpoint, save_checkpoint
from .data import Glyph, compose, to_tensor

CACHE = "latents.pt"
ENCODE_BATCH = 25


@dataclass(frozen=True)
class LatentCache:
    """`latents [N, 4, h, w]` scaled to unit variance, `labels [N]` (index of the emoji), and the factor used."""

    latents: torch.Tensor
    labels: torch.Tensor
    scale_factor: float


def load_latents(run: Run, glyphs: list[Glyph], per_glyph: int) -> LatentCache:
    """Reads the cache of the run's folder; makes it first if there is none."""
    path = run.folder / CACHE
    saved = load_checkpoint(path, torch.device("cpu"))
    if saved is None:
        saved = _encode_all(run, glyphs, per_glyph)
        save_checkpoint(path, saved)
    latents = saved["means"].float()
    scale_factor = float(1 / latents.std())
    return LatentCache(latents.mul_(scale_factor).to(run.device), saved["labels"].to(run.device), scale_factor)


@torch.no_grad()
def _encode_all(run: Run, glyphs: list[Glyph], per_glyph: int) -> dict[str, torch.Tensor]:
    model = load_autoencoder(run)
    rng = np.random.default_rng((run.seed, 2**20))
    labels = np.tile(np.arange(len(glyphs)), per_glyph)
    means = []
    for part in tqdm(np.array_split(labels, max(1, len(labels) // ENCODE_BATCH)), desc="latents", mininterval=5):
        pictures = to_tensor([compose(glyphs[label], rng)[0] for label in part])
        with run.autocast():
            means.append(model.encode(pictures.to(run.device))[0].half().cpu())
    return {"means": torch.cat(means), "labels": torch.from_numpy(labels)}
