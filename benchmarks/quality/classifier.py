"""A small classifier of the demo model's captions: its features are the space the distances are measured in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from .background import find_background

SIDE = 64
"""Pixels per side the classifier looks at."""

FEATURES = 64
"""Length of the feature vectors: well below the pictures per cell, so that covariances have full rank."""

WIDTHS = (24, 48, 96, 144)
WEIGHTS = Path(__file__).with_name("classifier.safetensors")


class Classifier(nn.Module):
    """Four convolutions that halve the picture, one more, the mean over the picture, features, captions."""

    def __init__(self, captions: int) -> None:
        super().__init__()
        self.body = convolutions(WIDTHS)
        self.features = nn.Linear(2 * WIDTHS[-1], FEATURES)
        self.head = nn.Linear(FEATURES, captions)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 3, SIDE, SIDE] in -1..1 -> features [B, FEATURES] and scores [B, captions]."""
        x = self.body(x)
        features = self.features(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))
        return features, self.head(features.relu())


def convolutions(widths: Sequence[int]) -> nn.Sequential:
    """[B, 3, h, w] -> [B, widths[-1], ...]: a convolution that halves for each width, and one more."""
    layers: list[nn.Module] = []
    for before, after, stride in zip((3, *widths), (*widths, widths[-1]), (*(2 for _ in widths), 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def load_classifier(path: Path = WEIGHTS) -> Classifier:
    """The trained classifier, in evaluation mode."""
    weights = {name: value.float() for name, value in load_file(path).items()}
    model = Classifier(weights["head.bias"].numel())
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def look(model: Classifier, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pictures `[H, W, 3]` of any size -> features `[n, FEATURES]` and best captions' numbers `[n]`."""
    parts = [model(to_input(pictures[i : i + 64])) for i in range(0, len(pictures), 64)]
    features = torch.cat([part[0] for part in parts])
    return features.double().numpy(), torch.cat([part[1] for part in parts]).argmax(1).numpy()


def to_input(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 pictures `[H, W, 3]` -> [B, 3, SIDE, SIDE] in -1..1; see `squared` for those that are not square."""
    small = [
        np.asarray(Image.fromarray(squared(picture)).resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in pictures
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def squared(picture: np.ndarray) -> np.ndarray:
    """The picture itself if square; otherwise in the middle of a square of its mean background colour, uint8."""
    height, width, _ = picture.shape
    if height == width:
        return picture
    side = max(height, width)
    colour = find_background(picture).plane.mean((0, 1)).clip(0, 1) * 255
    square = np.full((side, side, 3), colour.round().astype(np.uint8))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
