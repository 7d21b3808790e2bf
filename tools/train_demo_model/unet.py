"""Trains the UNet and the text encoder together, on native pictures at any noise and on larger ones at less."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..fused_attention import use_fused_attention
from .autoencoder import load_autoencoder, take_over
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
from .model import FACTOR, LATENT_CHANNELS, UNET, Autoencoder, build_text_encoder, build_unet
from .pools import Latents, Pool, Shares, measure_scale_factor
from .text import encode, make_tokenizer, silence_other_words, tokenize

PEAK_RATE = 8e-4
WARM_UP = 50
FURTHER_RATE = 3e-4  # of a model that was trained before
NATIVE = 10  # pictures of the native size in each step, at any noise
LARGER = {24: 5, 32: 4, 48: 1}  # cells a side: how many larger ones beside them, about as much work each
LARGER_SHARES = (0.2, 0.65, 0.15)  # of the steps
LARGER_BELOW = 500  # the timesteps of larger ones: what is where is settled before, by native pictures alone
CAPTION_DROPOUT = 0.1
ARTICLE_SHARE = 0.25  # captions shown as "a <caption>", so that both ways of asking work
AVERAGE_DECAY = 0.997
LOG_EVERY = 50
SAVE_EVERY = 50
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


def train_unet(run: Run, glyphs: list[Glyph], iterations: int, sample_every: int, start: Path | None) -> None:
    """Trains up to `iterations` in all, from the checkpoint in the run's folder if there is one; with more of them than
    it was to have, the learning rate begins anew.

    With `start`, an exported model's folder, its UNet is trained further; its autoencoder (unless the run's folder has
    one) and its text encoder stay what they are. Under `torchrun` every worker draws its own batch; the first writes
    the files.
    """
    worker = join_workers()
    torch.manual_seed(run.seed)
    exported = read_exported(start) if start else None
    if exported:
        take_over(run, exported)
    autoencoder = load_autoencoder(run).requires_grad_(False)
    use_fused_attention(autoencoder)
    scale_factor = exported.scale_factor if exported else measure_scale_factor(run, autoencoder, glyphs)
    tokens = _caption_tokens(glyphs).to(run.device)
    model = CaptionedUNet().to(run.device)
    silence_other_words(model.text, tokens)
    if exported:
        model.unet.load_state_dict(exported.unet)
        model.text.load_state_dict(exported.text)
        model.text.requires_grad_(False)
    use_fused_attention(model.unet)
    peak = FURTHER_RATE if exported else PEAK_RATE
    average = deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    done = began = 0
    saved = load_checkpoint(run.folder / CHECKPOINT, run.device)
    if saved is not None:
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        if "optimizer" in saved:
            optimizer.load_state_dict(saved["optimizer"])
        done = saved["iteration"]
        began = saved["began"] if saved.get("until") == iterations else done
    torch.manual_seed(run.seed + done + 1_000_000 * worker)
    rng = np.random.default_rng((run.seed, done, worker))
    shares = Shares(len(glyphs))
    make_pool = partial(Pool, run, autoencoder, glyphs, scale_factor=scale_factor, shares=shares)
    native = make_pool(UNET["image_size"], parts=False)
    larger = {cells: make_pool(cells, parts=True) for cells in LARGER}
    train_coarse_first(model.unet)
    alphas = alphas_cumprod().to(run.device)

    def loss_of(latents: Latents, below: int) -> torch.Tensor:
        timesteps = draw_timesteps(len(latents.labels), below, run.device)
        with run.autocast():
            context = encode(model.text, tokens[_caption_rows(latents.labels, len(glyphs))])
            losses = v_loss(model, latents.values, timesteps, context, alphas)
        shares.note(latents.labels, losses)
        return losses.mean()

    losses: list[tuple[float, float]] = []
    progress = tqdm(
        range(done, iterations), initial=done, total=iterations, desc="unet", mininterval=10, disable=worker > 0
    )
    for step in progress:
        set_learning_rate(optimizer, peak, step - began, WARM_UP, iterations - began)
        cells = int(rng.choice(list(LARGER), p=LARGER_SHARES))
        native_loss = loss_of(native.draw(NATIVE, rng), TIMESTEPS)
        native_loss.backward()
        larger_loss = loss_of(larger[cells].draw(LARGER[cells], rng), LARGER_BELOW)
        larger_loss.backward()
        average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _update_average(average, model, step)
        losses.append((native_loss.item(), larger_loss.item()))
        done = step + 1
        if worker > 0:
            continue
        if done % LOG_EVERY == 0:
            means = dict(zip(("native", "larger"), (sum(kind) / len(losses) for kind in zip(*losses)), strict=True))
            losses.clear()
            progress.set_postfix({kind: f"{mean:.4f}" for kind, mean in means.items()})
            append_log(run.folder / "unet.csv", {"iteration": done, **means})
        if done % SAVE_EVERY == 0 or done == iterations:
            where = {"iteration": done, "began": began, "until": iterations}
            _save(run, model, average, optimizer, {**where, "scale_factor": scale_factor})
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
    run: Run, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, numbers: dict[str, float]
) -> None:
    states = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(run.folder / CHECKPOINT, {**states, **numbers})
