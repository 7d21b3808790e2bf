"""Trains the autoencoder: pictures `[B, 3, H, W]` to latents `[B, 4, H/8, W/8]` and back."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from .common import Run, append_log, load_checkpoint, save_checkpoint, set_learning_rate
from .data import SIDE, Glyph, close_up, compose, crop_around, save_grid, to_pictures, to_tensor
from .exported import Exported, read_exported
from .model import Autoencoder

PEAK_RATE = 2e-3
FURTHER_RATE = 1e-3  # of an autoencoder that was trained before
WARM_UP = 30
GRADIENT_WEIGHT = 0.5
KL_WEIGHT = 1e-4  # per latent value; small, so the latents stay near unit scale without losing detail
PIXELS_PER_BATCH = 8 * 64 * 64
CROP_SIDES = (64, 64, 64, SIDE)  # drawn at random: mostly cuts full of object, sometimes whole pictures
CLOSE_SHARE = 0.5  # of the pictures, whole or cut, are close-ups
EVALUATE_EVERY = 100
CHECKPOINT = "autoencoder.pt"


def train_autoencoder(run: Run, glyphs: list[Glyph], iterations: int, decoder_only: bool, start: Path | None) -> None:
    """Trains up to `iterations` in all, from the checkpoint in the run's folder if there is one.

    With `start`, an exported model's folder, its autoencoder is trained further. With `decoder_only` the latents stay
    what they are, so a UNet trained on them stays valid.
    """
    torch.manual_seed(run.seed)
    model = Autoencoder().to(run.device)
    if start:
        model.load_state_dict(read_exported(start).autoencoder)
    peak = FURTHER_RATE if start else PEAK_RATE
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.0)
    done = 0
    saved = load_checkpoint(run.folder / CHECKPOINT, run.device)
    if saved is not None:
        model.load_state_dict(saved["model"])
        if "optimizer" in saved:
            optimizer.load_state_dict(saved["optimizer"])
        done = saved["iteration"]
    if decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    held_out = {kind: pictures.to(run.device) for kind, pictures in held_out_pictures(glyphs).items()}
    progress = tqdm(range(done, iterations), initial=done, total=iterations, desc="autoencoder", mininterval=5)
    for step in progress:
        set_learning_rate(optimizer, peak, step, WARM_UP, iterations)
        # A generator of its own per step: a resumed run draws the pictures an uninterrupted one would have drawn.
        batch = _training_batch(glyphs, np.random.default_rng((run.seed, step))).to(run.device)
        with run.autocast():
            loss = _loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % EVALUATE_EVERY == 0 or done == iterations:
            quality = {
                kind: evaluate(run, model, pictures, run.folder / "samples" / f"autoencoder-{kind}.png")
                for kind, pictures in held_out.items()
            }
            progress.set_postfix({kind: f"{psnr:.2f} dB" for kind, psnr in quality.items()})
            append_log(run.folder / "autoencoder.csv", {"iteration": done, "loss": loss.item(), **quality})
            save_checkpoint(
                run.folder / CHECKPOINT,
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": done},
            )


def take_over(run: Run, exported: Exported) -> None:
    """Puts an exported model's autoencoder into the run's folder, unless there is one."""
    if not (run.folder / CHECKPOINT).exists():
        save_checkpoint(run.folder / CHECKPOINT, {"model": exported.autoencoder, "iteration": 0})


def load_autoencoder(run: Run) -> Autoencoder:
    """The trained autoencoder of the run's folder, in evaluation mode."""
    saved = load_checkpoint(run.folder / CHECKPOINT, run.device)
    if saved is None:
        raise FileNotFoundError(f"No autoencoder in {run.folder}: run the command `autoencoder` first.")
    model = Autoencoder().to(run.device)
    model.load_state_dict(saved["model"])
    return model.eval()


def held_out_pictures(glyphs: list[Glyph], count: int = 48) -> dict[str, torch.Tensor]:
    """Whole pictures and close-ups, each `[count, 3, SIDE, SIDE]`, from a seed that no training batch uses."""
    rng = np.random.default_rng(2**31)
    chosen = list(itertools.islice(itertools.cycle(glyphs[::3]), count))
    return {
        "whole": to_tensor([compose(glyph, rng)[0] for glyph in chosen]),
        "close": to_tensor([close_up(glyph, rng)[0] for glyph in chosen]),
    }


@torch.no_grad()
def evaluate(run: Run, model: Autoencoder, pictures: torch.Tensor, sheet: Path) -> float:
    """PSNR in dB of the reconstructions (from the latents' means) over all pixels; also writes a comparison sheet."""
    with run.autocast():
        reconstructed = torch.cat([model.decode(model.encode(part)[0]) for part in pictures.split(8)])
    pairs = torch.stack((pictures[:24], reconstructed[:24]), dim=1).flatten(0, 1)
    save_grid(to_pictures(pairs), sheet, columns=8)
    error = functional.mse_loss(reconstructed.clamp(-1, 1), pictures).item()
    return 10 * math.log10(4 / error)


def _training_batch(glyphs: list[Glyph], rng: np.random.Generator) -> torch.Tensor:
    side = int(rng.choice(CROP_SIDES))
    pictures = []
    for index in rng.integers(0, len(glyphs), PIXELS_PER_BATCH // side**2):
        if rng.random() < CLOSE_SHARE:
            picture, box = close_up(glyphs[index], rng)[0], (0, 0, SIDE, SIDE)
        else:
            picture, box = compose(glyphs[index], rng)
        pictures.append(crop_around(picture, box, side, rng))
    return to_tensor(pictures)


def _loss(model: Autoencoder, pictures: torch.Tensor) -> torch.Tensor:
    """L1 and L2 of the pixels, L1 of their differences to the neighbours (edges), and a slight pull to N(0, 1)."""
    mean, log_variance = model.encode(pictures)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    error = model.decode(latents) - pictures
    gradients = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + error.square().mean() + GRADIENT_WEIGHT * gradients + KL_WEIGHT * divergence
