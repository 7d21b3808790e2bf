"""Trains the classifier on rendered pictures, made to look as if a model had drawn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from tools.train_demo_model.data import Glyph

from .classifier import SIDE, WEIGHTS, Classifier
from .compositions import compose

PER_CAPTION = 60
HELD_OUT = 10
OBJECT_SHARE = (0.35, 0.9)
"""Longer side of the object as a share of the picture's: wider than the renderer's, for other aspects' margins."""

ITERATIONS = 1500
BATCH = 96
PEAK_RATE = 3e-3
SEED = 20


def train_classifier(glyphs: list[Glyph], path: Path = WEIGHTS) -> tuple[float, float]:
    """Trains and writes the weights (fp16).

    Returns:
        Accuracy on pictures from another seed, clean and as worn as in training.
    """
    torch.manual_seed(SEED)
    pictures, labels = render(glyphs, PER_CAPTION, SEED)
    model = Classifier(len(glyphs)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, ITERATIONS)
    progress = tqdm(range(ITERATIONS), desc="classifier", mininterval=5)
    for _ in progress:
        chosen = torch.randint(len(labels), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(worn(pictures[chosen]))[1]
            loss = F.cross_entropy(scores.float(), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    scale_features(model.eval(), pictures)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    path.chmod(0o644)
    return accuracies(model, glyphs)


@torch.inference_mode()
def scale_features(model: Classifier, pictures: torch.Tensor) -> None:
    """Makes the features' mean square one over uint8 pictures [n, 3, SIDE, SIDE]; the scores stay what they were."""
    features = torch.cat([model(as_input(part))[0] for part in pictures[:: PER_CAPTION // 4].split(100)])
    scale = features.square().mean().sqrt()
    for parameter in model.features.parameters():
        parameter /= scale
    model.head.weight *= scale  # through a ReLU, which a positive factor passes


@torch.inference_mode()
def accuracies(model: Classifier, glyphs: list[Glyph]) -> tuple[float, float]:
    """Accuracy on held-out renderings: clean, worn."""
    pictures, labels = render(glyphs, HELD_OUT, SEED + 1)
    clean, rough = (
        torch.cat([model(change(part))[1].argmax(1) for part in pictures.split(100)]) == labels
        for change in (as_input, worn)
    )
    return float(clean.float().mean()), float(rough.float().mean())


def render(glyphs: list[Glyph], per_caption: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [n, 3, SIDE, SIDE] uint8 and the numbers of their captions [n]."""
    rng = np.random.default_rng(seed)
    pictures: list[np.ndarray] = []
    for glyph in glyphs:
        for _ in range(per_caption):
            picture = Image.fromarray(compose([glyph], (128, 128), OBJECT_SHARE, rng))
            pictures.append(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)))
    labels = torch.arange(len(glyphs)).repeat_interleave(per_caption)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), labels


def as_input(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] -> float in -1..1."""
    return pictures.float() / 127.5 - 1


def worn(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, SIDE, SIDE] -> float in -1..1, as a model might have drawn them.

    Each picture is softened by its own amount, gets slow and fast noise, another contrast and brightness, and loses
    a part in one case of four.
    """
    x = as_input(pictures)
    count = len(x)

    def amount(largest: float) -> torch.Tensor:
        return largest * torch.rand(count, 1, 1, 1)

    soft = F.interpolate(F.interpolate(x, scale_factor=0.4, mode="area"), size=x.shape[-2:], mode="bilinear")
    x = torch.lerp(x, soft, amount(1.0).square())
    slow = F.interpolate(torch.randn(count, 3, 8, 8), size=x.shape[-2:], mode="bicubic")
    x = x * (0.85 + amount(0.3)) + amount(0.2) - 0.1 + amount(0.2) * slow + amount(0.12) * torch.randn_like(x)
    at = torch.arange(x.shape[-1])
    corner = torch.randint(0, x.shape[-1], (2, count, 1))
    inside = ((at >= corner) & (at < corner + x.shape[-1] // 4)) & (torch.rand(count, 1) < 0.25)
    hole = inside[0, :, None, :, None] & inside[1, :, None, None, :]
    return torch.where(hole, x.mean((2, 3), keepdim=True), x).clamp(-1, 1)
