"""Trains the network that looks at detail, on close-ups of true renderings and of such with a false texture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from tools.train_demo_model.data import Glyph, close_up

from .detail import WEIGHTS, DetailNet

PER_CAPTION = 50
HELD_OUT = 5
FALSE_SHARE = 0.4
"""Of the crops."""

FALSE_TIMES = (1.7, 2.0, 2.5, 3.0)
"""How many times too small a false texture is."""

ITERATIONS = 1200
BATCH = 64
PEAK_RATE = 3e-3
NEARNESS_WEIGHT = 2.0
SOFTNESS_WEIGHT = 12.0
SEED = 30


class Crops(NamedTuple):
    """Crops [n, 3, CROP, CROP] uint8, and the right answers [n]: number of the caption, log of the nearness, false?"""

    pictures: torch.Tensor
    labels: torch.Tensor
    nearness: torch.Tensor
    false: torch.Tensor


def train_detail_net(glyphs: list[Glyph], path: Path = WEIGHTS) -> dict[str, float]:
    """Trains and writes the weights (fp16); returns how good the answers are (`accuracies`)."""
    torch.manual_seed(SEED)
    crops = render(glyphs, PER_CAPTION, SEED)
    model = DetailNet(len(glyphs)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, ITERATIONS)
    progress = tqdm(range(ITERATIONS), desc="detail", mininterval=5)
    for _ in progress:
        chosen = torch.randint(len(crops.labels), (BATCH,))
        softness = torch.rand(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            answers = model(worn(as_input(crops.pictures[chosen]), softness))
        loss = (
            F.cross_entropy(answers.captions.float(), crops.labels[chosen], label_smoothing=0.05)
            + NEARNESS_WEIGHT * F.smooth_l1_loss(answers.nearness.float(), crops.nearness[chosen])
            + F.binary_cross_entropy_with_logits(answers.falseness.float(), crops.false[chosen].float())
            + SOFTNESS_WEIGHT * F.mse_loss(answers.softness.float(), softness)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    scale_features(model.eval(), crops.pictures[~crops.false][:1000])
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    path.chmod(0o644)
    return accuracies(model, render(glyphs, HELD_OUT, SEED + 1))


@torch.inference_mode()
def scale_features(model: DetailNet, pictures: torch.Tensor) -> None:
    """Makes the features' mean square one over true crops uint8 [n, 3, CROP, CROP]; the answers stay what they were."""
    features = torch.cat([model(as_input(part)).features for part in pictures.split(100)])
    scale = features.square().mean().sqrt()
    for parameter in model.features.parameters():
        parameter /= scale
    for head in (model.captions, model.nearness, model.falseness, model.softness):
        head.weight *= scale  # a ReLU between passes a positive factor


@torch.inference_mode()
def accuracies(model: DetailNet, crops: Crops) -> dict[str, float]:
    """Shares of right answers: `captions` and `nearness` (to within a third) of true crops, `falseness` of all."""
    parts = [model(as_input(part)) for part in crops.pictures.split(100)]
    captions, nearness, falseness = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("captions", "nearness", "falseness")
    )
    true = ~crops.false
    near = (nearness - crops.nearness).abs() < np.log(4 / 3)
    right = {
        "captions": (captions.argmax(1) == crops.labels)[true],
        "nearness": near[true],
        "falseness": (falseness > 0) == crops.false,
    }
    return {name: round(float(values.float().mean()), 4) for name, values in right.items()}


def render(glyphs: list[Glyph], per_caption: int, seed: int) -> Crops:
    """Close-ups of every glyph, true and false ones in turn."""
    rng = np.random.default_rng(seed)
    pictures, labels, nearness, false = [], [], [], []
    for label, glyph in enumerate(tqdm(glyphs, desc="crops", mininterval=5)):
        fillings = [textured(glyph, times) for times in FALSE_TIMES]
        for index in range(per_caption):
            is_false = index >= (1 - FALSE_SHARE) * per_caption
            picture, zoom = close_up(fillings[rng.integers(len(fillings))] if is_false else glyph, rng)
            pictures.append(picture)
            labels.append(label)
            nearness.append(float(np.log(zoom)))
            false.append(is_false)
    drawn = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Crops(drawn, torch.tensor(labels), torch.tensor(nearness), torch.tensor(false))


def as_input(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] -> float in -1..1."""
    return pictures.float() / 127.5 - 1


def worn(x: torch.Tensor, softness: torch.Tensor) -> torch.Tensor:
    """Pictures [B, 3, H, W] in -1..1 that much softer (0..1, [B]), each a little noisier and of another contrast and
    brightness, so that the features do not make more of these than a person does.
    """
    count = len(x)

    def amount(largest: float) -> torch.Tensor:
        return largest * torch.rand(count, 1, 1, 1)

    soft = F.interpolate(F.interpolate(x, scale_factor=0.5, mode="area"), size=x.shape[-2:], mode="bicubic")
    x = torch.lerp(x, soft, softness[:, None, None, None])
    x = x * (0.85 + amount(0.3)) + amount(0.2) - 0.1
    return (x + 0.08 * amount(1.0).square() * torch.randn_like(x)).clamp(-1, 1)


def textured(glyph: Glyph, times: float) -> Glyph:
    """The same outline, filled with the emoji again and again, that many times smaller per side.

    So a model fills an object that is larger than those it knows.
    """
    width, height = glyph.image.size
    small = glyph.image.resize((max(1, round(width / times)), max(1, round(height / times))), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32) / 255
    alpha = pixels[..., 3:]
    mean = (pixels[..., :3] * alpha).sum((0, 1)) / alpha.sum()
    filled = pixels[..., :3] * alpha + mean * (1 - alpha)
    again = -(-height // small.height), -(-width // small.width)
    colours = np.tile(filled, (*again, 1))[:height, :width]
    outline = np.asarray(glyph.image)[..., 3:]
    return replace(glyph, image=Image.fromarray(np.concatenate([(colours * 255).astype(np.uint8), outline], 2), "RGBA"))
