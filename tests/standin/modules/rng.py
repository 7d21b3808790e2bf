"""Noise: one generator per image, so that an image does not depend on its neighbours in the batch."""

from __future__ import annotations

import torch


class ImageRNG:
    """Noise source of one batch; each call of `next` gives `[len(seeds), *shape]`. Without variation seeds."""

    def __init__(self, shape, seeds):
        self.shape = tuple(map(int, shape))
        self.generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]

    def next(self) -> torch.Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
