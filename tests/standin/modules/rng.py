"""Noise: one generator per image, so that an image does not depend on its neighbours in the batch."""

from __future__ import annotations

import torch


class ImageRNG:
    """Noise source of one batch; each call of `next` gives `[len(seeds), *shape]`.

    As on the host, the first draw also seeds torch's global generator with each image's seed.
    """

    def __init__(self, shape, seeds, subseeds=None, subseed_strength=0.0):
        self.shape = tuple(map(int, shape))
        self.seeds, self.subseeds, self.subseed_strength = seeds, subseeds, subseed_strength
        self.generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
        self.is_first = True

    def next(self) -> torch.Tensor:
        noise = [torch.randn(self.shape, generator=g) for g in self.generators]
        if self.is_first:
            self.is_first = False
            for i, seed in enumerate(self.seeds):
                torch.manual_seed(int(seed))
                if self.subseeds is not None and self.subseed_strength:
                    torch.manual_seed(int(self.subseeds[i]))
                    noise[i] = slerp(self.subseed_strength, noise[i], torch.randn(self.shape))
        return torch.stack(noise)


def slerp(t: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation of two noises `[C, H, W]`, taken over their flattened values."""
    omega = torch.arccos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def randn_local(seed: int, shape) -> torch.Tensor:
    """First draw of a seed, without touching the global generator."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(int(seed)))
