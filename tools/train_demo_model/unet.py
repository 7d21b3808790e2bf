"""Trains the UNet and the text encoder together on the cached latents."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .autoencoder import load_autoencoder
from .coarse_first import train_coarse_first
from .common import (
    Run,
    append_log,
    average_gradients,
    join_workers,
    load_checkpoint,
    save_checkpoint,
    set_learning_rate,
)
from .data import Glyph, save_grid, to_pictures
from .diffusion import TIMESTEPS, alphas_cumprod, draw_timesteps, sample_ddim, v_loss
from .exported import read_exported
from .latents import load_latents
from .model import FACTOR, LATENT_CHANNELS, Autoencoder, build_text_encoder, build_unet
from .text import encode, make_tokenizer, silence_other_words, tokenize

PEAK_RATE = 8e-4
WARM_UP = 200
FURTHER_RATE = 3e-4  # of a model that was trained before
WHOLE, CLOSE = 16, 16  # pictures of a batch
CLOSE_BELOW = 500  # close-ups have timesteps below this: what is where is settled before, by whole pictures alone
CAPTION_DROPOUT = 0.1
ARTICLE_SHARE = 0.25  # captions shown as "a <caption>", so that both ways of asking work
AVERAGE_DECAY = 0.999
LOG_EVERY = 50
SAVE_EVERY = 250
CHECKPOINT = "unet.pt"


class CaptionedUNet(nn.Module):
    """The UNet with the text encoder it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet()
        self.text = build_text_encoder()

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """`(x [B, 4, h, w], timesteps [B], context [B, 77, width])` -> predicted v `[B, 4, h, w]`."""
        return self.unet(x, timesteps, context=context)


def train_unet(
    run: Run, glyphs: list[Glyph], iterations: int, pictures_per_glyph: int, sample_every: int, start: Path | None
) -> None:
    """Trains up to `iterations` in all, from the checkpoint in the run's folder if there is one.

    With `start`, an exported model's folder, its UNet is trained further and its text encoder stays what it is. Under
    `torchrun` every worker draws its own batch; the first writes the files.
    """
    worker = join_workers()
    torch.manual_seed(run.seed)
    exported = read_exported(start) if start else None
    cache = load_latents(run, glyphs, pictures_per_glyph, exported.scale_factor if exported else None)
    tokens = _caption_tokens(glyphs).to(run.device)
    model = CaptionedUNet().to(run.device)
    silence_other_words(model.text, tokens)
    if exported:
        model.unet.load_state_dict(exported.unet)
        model.text.load_state_dict(exported.text)
        model.text.requires_grad_(False)
    peak = FURTHER_RATE if exported else PEAK_RATE
    average = deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    done = 0
    saved = load_checkpoint(run.folder / CHECKPOINT, run.device)
    if saved is not None:
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        if "optimizer" in saved:
            optimizer.load_state_dict(saved["optimizer"])
        done = saved["iteration"]
    torch.manual_seed(run.seed + done + 1_000_000 * worker)
    train_coarse_first(model.unet)
    alphas = alphas_cumprod().to(run.device)
    losses: list[float] = []
    progress = tqdm(
        range(done, iterations), initial=done, total=iterations, desc="unet", mininterval=10, disable=worker > 0
    )
    for step in progress:
        set_learning_rate(optimizer, peak, step, WARM_UP, iterations)
        chosen = torch.randint(len(cache.labels), (WHOLE + CLOSE,), device=run.device)
        latents = torch.cat((cache.whole[chosen[:WHOLE]], cache.close[chosen[WHOLE:]]))
        timesteps = torch.cat(
            (draw_timesteps(WHOLE, TIMESTEPS, run.device), draw_timesteps(CLOSE, CLOSE_BELOW, run.device))
        )
        with run.autocast():
            context = encode(model.text, tokens[_caption_rows(cache.labels[chosen], len(glyphs))])
            loss = v_loss(model, latents, timesteps, context, alphas)
        loss.backward()
        average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _update_average(average, model, step)
        losses.append(loss.item())
        done = step + 1
        if worker > 0:
            continue
        if done % LOG_EVERY == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            progress.set_postfix(loss=f"{mean:.4f}")
            append_log(run.folder / "unet.csv", {"iteration": done, "loss": mean})
        if done % SAVE_EVERY == 0 or done == iterations:
            _save(run, model, average, optimizer, done, cache.scale_factor)
        if done % sample_every == 0:
            captions = [glyph.caption for glyph in glyphs[::7]]
            draw_samples(run, captions, 128, 128, steps=20, guidance=3.0, name=f"{done:06d}.png")


def draw_samples(
    run: Run, captions: list[str], height: int, width: int, steps: int, guidance: float, name: str
) -> Path:
    """Samples one picture (pixels `height x width`) per caption from the averaged weights; returns the sheet's path."""
    model, autoencoder, scale_factor = load_trained(run)
    tokenizer = make_tokenizer()
    generator = torch.Generator().manual_seed(run.seed)
    pictures = []
    for caption in tqdm(captions, desc=f"sample {height}x{width}", mininterval=5):
        tokens = tokenize(tokenizer, ["", caption]).to(run.device)
        noise = torch.randn(1, LATENT_CHANNELS, height // FACTOR, width // FACTOR, generator=generator)
        with torch.no_grad(), run.autocast():
            empty, context = encode(model.text, tokens).chunk(2)
            latents = sample_ddim(model, noise.to(run.device), context, empty, steps, guidance)
            pictures.append(autoencoder.decode(latents / scale_factor))
    path = run.folder / "samples" / name
    save_grid(to_pictures(torch.cat(pictures)), path, columns=max(2, min(12, 1536 // width)), captions=captions)
    return path


def load_trained(run: Run) -> tuple[CaptionedUNet, Autoencoder, float]:
    """The averaged UNet and text encoder, the autoencoder, and the factor that scales its latents."""
    saved = load_checkpoint(run.folder / CHECKPOINT, run.device)
    if saved is None:
        raise FileNotFoundError(f"No UNet in {run.folder}: run the command `unet` first.")
    model = CaptionedUNet().to(run.device).eval()
    model.load_state_dict(saved["average"])
    return model, load_autoencoder(run), saved["scale_factor"]


def _caption_tokens(glyphs: list[Glyph]) -> torch.Tensor:
    """Token ids `[1 + 2 N, 77]`: the empty caption, every caption, and every caption with its article."""
    captions = [glyph.caption for glyph in glyphs]
    with_article = [("an " if caption[0] in "aeiou" else "a ") + caption for caption in captions]
    tokenizer = make_tokenizer()
    return tokenize(tokenizer, ["", *captions, *with_article])


def _caption_rows(labels: torch.Tensor, glyph_count: int) -> torch.Tensor:
    """Rows of the caption table for labels `[B]`: plain, with article, or empty, at their shares."""
    draw = torch.rand(len(labels), device=labels.device)
    rows = torch.where(draw < ARTICLE_SHARE, 1 + glyph_count + labels, 1 + labels)
    return torch.where(draw >= 1 - CAPTION_DROPOUT, 0, rows)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Moves the averaged weights towards the trained ones, faster in the beginning."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    averaged: list[torch.Tensor] = list(average.parameters())
    trained: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(averaged, trained, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def _save(
    run: Run, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, done: int, scale_factor: float
) -> None:
    content: dict[str, Any] = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": done,
        "scale_factor": scale_factor,
    }
    save_checkpoint(run.folder / CHECKPOINT, content)
