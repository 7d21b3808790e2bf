"""Whether a picture is sharp and its texture true, looked at in full size.

A small network looks at crops as large as a native picture. It was trained to say what is on them, from how near it is
seen, whether the outline is filled with texture of another size and how soft it all is; its features are the space in
which crops are compared with crops of true renderings.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from .classifier import convolutions

CROP = 128
"""Pixels per side of a crop: the model's native picture."""

FEATURES = 64
WIDTHS = (24, 48, 80, 112)
WEIGHTS = Path(__file__).with_name("detail.safetensors")


class Answers(NamedTuple):
    """What the network says of crops.

    Attributes:
        features: [B, FEATURES].
        captions: Scores [B, captions].
        nearness: Logarithm of how many times nearer than a whole picture a crop is, [B].
        falseness: Above zero where it takes the texture for false, [B].
        softness: 0 sharp to 1 like a picture of half the size, enlarged, [B].
    """

    features: torch.Tensor
    captions: torch.Tensor
    nearness: torch.Tensor
    falseness: torch.Tensor
    softness: torch.Tensor


class DetailNet(nn.Module):
    """Four convolutions that halve the crop, one more, mean and maximum over the crop, features; four answers."""

    def __init__(self, captions: int) -> None:
        super().__init__()
        self.body = convolutions(WIDTHS)
        self.features = nn.Linear(2 * WIDTHS[-1], FEATURES)
        self.captions = nn.Linear(FEATURES, captions)
        self.nearness = nn.Linear(FEATURES, 1)
        self.falseness = nn.Linear(FEATURES, 1)
        self.softness = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> Answers:
        """Crops [B, 3, CROP, CROP] in -1..1."""
        x = self.body(x)
        features = self.features(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))
        numbers = (head(features)[:, 0] for head in (self.nearness, self.falseness, self.softness))
        return Answers(features, self.captions(features.relu()), *numbers)


def load_detail_net(path: Path = WEIGHTS) -> DetailNet:
    """The trained network, in evaluation mode."""
    weights = {name: value.float() for name, value in load_file(path).items()}
    model = DetailNet(weights["captions.bias"].numel())
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def look_closely(model: DetailNet, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Looks at the crops of uint8 pictures `[H, W, 3]` of one size.

    Returns:
        Features, float64 `[n, crops, FEATURES]`, and whether the texture is taken for false, bool `[n, crops]`.
    """
    features: list[torch.Tensor] = []
    false: list[torch.Tensor] = []
    for start in range(0, len(pictures), 32):
        cut = np.stack([crops(picture) for picture in pictures[start : start + 32]])
        answers = model(torch.from_numpy(cut).flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1)
        features.append(answers.features.unflatten(0, cut.shape[:2]))
        false.append((answers.falseness > 0).unflatten(0, cut.shape[:2]))
    return torch.cat(features).double().numpy(), torch.cat(false).numpy()


def crops(picture: np.ndarray) -> np.ndarray:
    """The fewest crops that cover a picture `[H, W, 3]`, evenly placed: `[crops, CROP, CROP, 3]`."""
    height, width, _ = picture.shape
    return np.stack([picture[y : y + CROP, x : x + CROP] for y in _starts(height) for x in _starts(width)])


def _starts(length: int) -> list[int]:
    count = -(-length // CROP)
    return [round(start) for start in np.linspace(0, length - CROP, count)]
