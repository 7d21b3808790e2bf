"""The latent cache: every training picture encoded once, so that a UNet step does not pay for the autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from .autoencoder import load_autoencoder
from .common import Run, load_checkpoint, save_checkpoint
from .data import Glyph, close_up, compose, to_tensor

CACHE = "latents.pt"
ENCODE_BATCH = 25


@dataclass(frozen=True)
class LatentCache:
    """What the UNet learns from.

    Attributes:
        whole: `[N, 4, h, w]`, whole pictures, scaled by the factor.
        close: `[N, 4, h, w]`, close-ups, likewise.
        labels: `[N]`, the index of the emoji, the same for both.
        scale_factor: Gives the whole pictures' latents unit variance.
    """

    whole: torch.Tensor
    close: torch.Tensor
    labels: torch.Tensor
    scale_factor: float


def load_latents(run: Run, glyphs: list[Glyph], per_glyph: int, scale_factor: float | None) -> LatentCache:
    """Reads the cache of the run's folder; makes it first if there is none. A scale factor that is given is kept."""
    path = run.folder / CACHE
    saved = load_checkpoint(path, torch.device("cpu"))
    if saved is None:
        saved = _encode_all(run, glyphs, per_glyph)
        save_checkpoint(path, saved)
    whole, close = saved["whole"].float(), saved["close"].float()
    factor = scale_factor or float(1 / whole.std())
    return LatentCache(
        whole.mul_(factor).to(run.device), close.mul_(factor).to(run.device), saved["labels"].to(run.device), factor
    )


@torch.no_grad()
def _encode_all(run: Run, glyphs: list[Glyph], per_glyph: int) -> dict[str, torch.Tensor]:
    model = load_autoencoder(run)
    rng = np.random.default_rng((run.seed, 2**20))
    labels = np.tile(np.arange(len(glyphs)), per_glyph)
    means: dict[str, list[torch.Tensor]] = {"whole": [], "close": []}
    for part in tqdm(np.array_split(labels, max(1, len(labels) // ENCODE_BATCH)), desc="latents", mininterval=5):
        pictures = {
            "whole": [compose(glyphs[label], rng)[0] for label in part],
            "close": [close_up(glyphs[label], rng)[0] for label in part],
        }
        for kind, drawn in pictures.items():
            with run.autocast():
                means[kind].append(model.encode(to_tensor(drawn).to(run.device))[0].half().cpu())
    return {kind: torch.cat(parts) for kind, parts in means.items()} | {"labels": torch.from_numpy(labels)}
