"""Relay: while there is much noise the UNet is called at a smaller size; what it finds there is enlarged.

A noisy latent is x0 + sigma * noise, and the mean of m x m of its cells has the noise sigma / m. So there is a smaller
latent with the noise that a pass of its own would have, and the UNet can be asked for the clean picture at its native
size, where it lays out one subject, and at a fraction of the work. Its clean estimate is enlarged such that its means
are the estimate again, and handed to the sampler as if it had been made at full size. The sampler, its schedule and its
random numbers stay as they are.

A pass that begins with noise alone has less of x0 in its latents than they are said to have, the less, the more of its
first noise is left. With the noise sigma / m a native pass would have more of it: means taken as they are look to the
model like a pale picture, and it draws one. Made larger (`scale`), they are the latents of a native pass at more noise.

The same hand-over between passes, each with a sampler of its own: FreCaS (arXiv 2410.18410), RectifiedHR (2503.02537).
A size is (height, width) in latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from .resizing import bicubic
from .sizes import Size

BACK_PROJECTIONS = 3
"""How often an enlarged estimate is corrected by what its means are off by; each leaves about a tenth of the error."""

LATENT_CHANNELS = 4
"""The channels of a UNet's input that are the noisy latent; an inpainting UNet has its mask and picture behind them."""


class Beginning:
    """The noise that a pass begins with, and how much of it is left in later latents.

    A sampler puts clean estimates in its place, and one that adds noise of its own does so faster. It is found by the
    differences of neighbouring cells, where enlarged estimates have next to nothing.

    Args:
        sigma: The pass's first noise.
    """

    def __init__(self, sigma: float) -> None:
        self._sigma = sigma
        self._rows: list[torch.Tensor] = []

    def note(self, x: torch.Tensor) -> None:
        """Takes the noise from what the UNet is called with at first, [B, C, H, W]; calls may have some rows each."""
        self._rows += _differences(x, self._sigma)

    def left(self, x: torch.Tensor, sigma: float) -> list[float]:
        """The share of it, 0 to 1, that is left in each row of [B, C, H, W]; a row's own is the one it has most of.

        If there was no first call to take it from, it is what a sampler that adds no noise leaves.
        """
        most = sigma / self._sigma
        if not self._rows:
            return [most] * len(x)
        first, now = torch.stack(self._rows), _differences(x, sigma)
        shares = (now @ first.T / first.square().sum(1)).amax(1).clamp(0, most)
        return [float(share) for share in shares.cpu()]


def _differences(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Those of neighbouring cells of the latents [B, n] in what the UNet is called with, [B, C, H, W]."""
    return x[:, :LATENT_CHANNELS].float().diff(dim=-1).flatten(1) * _norm(sigma)


def scale(ratio: float, left: float, kept: float) -> float:
    """How many times larger means have to be made to be a latent of a native pass, 1 to `1 / kept`.

    Means are (1 - left) x0 + kept sigma noise. A native pass with the same sampler has left of its first noise what
    this one had at the same noise: of what is scaled to the noise s, (s / first) ** p, if `left` is (sigma / first)
    ** p here. So scale (1 - left) + (scale kept ratio) ** p = 1.

    Args:
        ratio: The noise over that at first, sigma / first, 0 to 1.
        left: The share of the first noise that is left, 0 to `ratio`.
        kept: Of `noise_kept`.
    """
    if ratio >= 1:
        return 1 / kept
    power = math.log(max(left, LEAST_LEFT)) / math.log(ratio)
    low, high = 1.0, 1 / kept
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_small = middle * (1 - left) + (middle * kept * ratio) ** power < 1
        low, high = (middle, high) if too_small else (low, middle)
    return low


LEAST_LEFT = 1e-3
"""Less of the first noise than this cannot be told from none."""

HALVINGS = 20
"""Of an interval, until it is as narrow as single precision tells numbers apart."""


class Call:
    """A call of the UNet, made at a smaller size.

    Samplers give the UNet latents of variance 1, (x0 + sigma * noise) / sqrt(1 + sigma^2), and take the noise from it,
    or v = (noise - sigma * x0) / sqrt(1 + sigma^2) (arXiv 2202.00512, appendix D).

    Args:
        x: What the UNet is to be called with, [B, C, H, W].
        size: The smaller size.
        sigma: The noise's standard deviation over the signal's in `x`.
        scales: How many times larger than means the smaller latent of each row is (`scale`).
        v_prediction: Whether the UNet predicts v; otherwise the noise.

    Attributes:
        input: What to call it with instead, [B, C, h, w].
        sigmas: The noise of each of its rows.
    """

    def __init__(
        self, x: torch.Tensor, size: Size, sigma: float, scales: Sequence[float], *, v_prediction: bool
    ) -> None:
        self._x, self._sigma, self._v_prediction = x, sigma, v_prediction
        kept = noise_kept((x.shape[-2], x.shape[-1]), size)
        self.sigmas = [sigma * kept * by for by in scales]
        small = shrink(x.float(), size)
        self._small = small[:, :LATENT_CHANNELS]
        self._small *= _per_row(x, [by * _norm(sigma) / _norm(s) for by, s in zip(scales, self.sigmas, strict=True)])
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
        sigma, norm = _per_row(found, self.sigmas), _per_row(found, [_norm(sigma) for sigma in self.sigmas])
        if self._v_prediction:
            return (self._small - sigma * found) / norm
        return self._small * norm - sigma * found


def _per_row(x: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
    """Numbers, one for each row of [B, C, H, W], to calculate with: [B, 1, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=x.device).reshape(-1, 1, 1, 1)


def _norm(sigma: float) -> float:
    """The standard deviation of a latent of variance 1 with that much noise."""
    return (1 + sigma**2) ** 0.5


def shrink(x: torch.Tensor, size: Size) -> torch.Tensor:
    """The means of [B, C, H, W] over the areas of [h, w] smaller cells, whole or not: [B, C, h, w]."""
    rows, columns = (_means(small, large, x.device, x.dtype) for small, large in zip(size, x.shape[-2:]))
    return rows @ x @ columns.T


def enlarge(x: torch.Tensor, size: Size) -> torch.Tensor:
    """A smooth [B, C, H, W] whose means over the cells of [B, C, h, w] are that (bicubic, then back-projected)."""
    small: Size = (x.shape[-2], x.shape[-1])
    large = bicubic(x, size)
    for _ in range(BACK_PROJECTIONS):
        large = large + bicubic(x - shrink(large, small), size)
    return large


@lru_cache(maxsize=16)
def noise_kept(large: Size, small: Size) -> float:
    """The standard deviation of independent noise of 1 in the larger cells after `shrink`: 1 / m for m x m cells."""
    means = (_means(*sides, torch.device("cpu"), torch.float32) for sides in zip(small, large))
    return math.prod(float(each.square().sum(1).mean()) for each in means) ** 0.5


@lru_cache(maxsize=16)
def _means(small: int, large: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[small, large]: which share of each smaller-size cell is each larger-size cell; rows sum to 1."""
    with torch.inference_mode(mode=False):  # the tables outlive the pass that asks for them first
        ratio = large / small
        begin = torch.arange(small, dtype=torch.float64)[:, None] * ratio
        cells = torch.arange(large, dtype=torch.float64)[None, :]
        inside = torch.minimum(begin + ratio, cells + 1) - torch.maximum(begin, cells)
        return (inside.clamp(min=0) / ratio).to(device, dtype)
