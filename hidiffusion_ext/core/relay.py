"""Relay: while there is much noise the UNet is called at a smaller size; what it finds there is enlarged.

A noisy latent is x0 + sigma * noise. One of m x m of its cells has the noise sigma, their mean sigma / m, and what lies
between these two anything between. So there is a smaller latent with the noise that a pass of its own would have, and
the UNet can be asked for the clean picture at its native size, where it lays out one subject, and at a fraction of the
work. Its clean estimate is enlarged such that its means are the estimate again, and handed to the sampler as if it had
been made at full size. The sampler, its schedule and its random numbers stay as they are.

With means alone the smaller pass would begin with 1 / m of its noise, and from three times the side on draw pale
pictures: the model takes the even latent for what is seen through the noise.

The same hand-over between passes, each with a sampler of its own: FreCaS (arXiv 2410.18410), RectifiedHR (2503.02537).
Pure functions; a size is (height, width) in latent cells.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from .resizing import bicubic
from .sizes import Size

BACK_PROJECTIONS = 3
"""How often an enlarged estimate is corrected by what its means are off by; each leaves about a tenth of the error."""


LEAST_AT_FIRST = 0.5
"""The least noise that a smaller pass begins with, as a share of the large one's. On the demo model, four times the
side, pictures with a half and with all of it are alike, and less pale than with a quarter (docs/quality.md)."""

LATENT_CHANNELS = 4
"""The channels of a UNet's input that are the noisy latent; an inpainting UNet has its mask and picture behind them."""


class Call:
    """A call of the UNet, made at a smaller size.

    Samplers give the UNet latents of variance 1, (x0 + sigma * noise) / sqrt(1 + sigma^2), and take the noise from it,
    or v = (noise - sigma * x0) / sqrt(1 + sigma^2) (arXiv 2202.00512, appendix D).

    Args:
        x: What the UNet is to be called with, [B, C, H, W].
        size: The smaller size.
        sigma: The noise's standard deviation over the signal's in `x`.
        wanted: What it should be in the smaller latent: from that of the means, `sigma * noise_kept`, which is taken
            for anything less, to `sigma`, which is taken for anything more.
        v_prediction: Whether the UNet predicts v; otherwise the noise.

    Attributes:
        input: What to call it with instead, [B, C, h, w].
        sigma_small: Its noise.
    """

    def __init__(self, x: torch.Tensor, size: Size, sigma: float, wanted: float, *, v_prediction: bool) -> None:
        self._x, self._sigma, self._v_prediction = x, sigma, v_prediction
        kept = noise_kept((x.shape[-2], x.shape[-1]), size)
        self.sigma_small = min(max(wanted, sigma * kept), sigma)
        small = shrink(x.float(), size)
        latent = small[:, :LATENT_CHANNELS]
        share = single_share((x.shape[-2], x.shape[-1]), size, self.sigma_small / sigma)
        latent += share * (pick(x[:, :LATENT_CHANNELS].float(), size) - latent)
        latent *= _norm(sigma) / _norm(self.sigma_small)
        self._small = latent
        self.input = small.to(x.dtype)

    def output(self, found: torch.Tensor) -> torch.Tensor:
        """The UNet's answer [B, 4, h, w] as it would be of the larger call: [B, 4, H, W]."""
        size: Size = (self._x.shape[-2], self._x.shape[-1])
        noisy, norm = self._x[:, :LATENT_CHANNELS].float(), _norm(self._sigma)
        clean = enlarge(self._clean(found.float()), size)
        noise = (noisy * norm - clean) / self._sigma
        answer = (noise - self._sigma * clean) / norm if self._v_prediction else noise
        return answer.to(found.dtype)

    def _clean(self, found: torch.Tensor) -> torch.Tensor:
        """The estimate of the clean latent in an answer of the smaller call."""
        norm = _norm(self.sigma_small)
        if self._v_prediction:
            return (self._small - self.sigma_small * found) / norm
        return self._small * norm - self.sigma_small * found


def _norm(sigma: float) -> float:
    """The standard deviation of a latent of variance 1 with that much noise."""
    return (1 + sigma**2) ** 0.5


def shrink(x: torch.Tensor, size: Size) -> torch.Tensor:
    """The means of [B, C, H, W] over the areas of [h, w] smaller cells, whole or not: [B, C, h, w]."""
    rows, columns = (_means(small, large, x.device, x.dtype) for small, large in zip(size, x.shape[-2:]))
    return rows @ x @ columns.T


def pick(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Of [B, C, H, W] the cells in the middle of the areas of [h, w] smaller cells: [B, C, h, w]."""
    rows, columns = (_middles(small, large).to(x.device) for small, large in zip(size, x.shape[-2:]))
    return x[..., rows, :][..., columns]


def enlarge(x: torch.Tensor, size: Size) -> torch.Tensor:
    """A smooth [B, C, H, W] whose means over the cells of [B, C, h, w] are that (bicubic, then back-projected)."""
    small: Size = (x.shape[-2], x.shape[-1])
    large = bicubic(x, size)
    for _ in range(BACK_PROJECTIONS):
        large = large + bicubic(x - shrink(large, small), size)
    return large


def noise_kept(large: Size, small: Size) -> float:
    """The standard deviation of independent noise of 1 in the larger cells after `shrink`: 1 / m for m x m cells."""
    return _variances(large, small)[0] ** 0.5


def single_share(large: Size, small: Size, noise: float) -> float:
    """The share of single cells (`pick`), the rest being means (`shrink`), that keeps so much of independent noise.

    Args:
        large, small: The sizes.
        noise: The standard deviation of what was 1, from `noise_kept` to 1.
    """
    kept, common = _variances(large, small)
    if noise**2 <= kept:  # means have as much, or the sizes are the same
        return 0.0
    # (1 - share)^2 kept + 2 share (1 - share) common + share^2 = noise^2
    square, linear = 1 - 2 * common + kept, common - kept
    return ((linear**2 + square * (noise**2 - kept)) ** 0.5 - linear) / square


@lru_cache(maxsize=16)
def _variances(large: Size, small: Size) -> tuple[float, float]:
    """Of independent noise of 1: the variance of `shrink`, and its covariance with `pick`."""
    kept = common = 1.0
    for side, side_small in zip(large, small):
        means = _means(side_small, side, torch.device("cpu"), torch.float32)
        kept *= float(means.square().sum(1).mean())
        common *= float(means[torch.arange(side_small), _middles(side_small, side)].mean())
    return kept, common


def _middles(small: int, large: int) -> torch.Tensor:
    """[small]: which larger-size cell is in the middle of each smaller-size cell."""
    return ((torch.arange(small) + 0.5) * (large / small)).long()


@lru_cache(maxsize=16)
def _means(small: int, large: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[small, large]: which share of each smaller-size cell is each larger-size cell; rows sum to 1."""
    with torch.inference_mode(mode=False):  # the tables outlive the pass that asks for them first
        ratio = large / small
        begin = torch.arange(small, dtype=torch.float64)[:, None] * ratio
        cells = torch.arange(large, dtype=torch.float64)[None, :]
        inside = torch.minimum(begin + ratio, cells + 1) - torch.maximum(begin, cells)
        return (inside.clamp(min=0) / ratio).to(device, dtype)
