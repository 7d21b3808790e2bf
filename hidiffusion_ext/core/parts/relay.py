"""Relay: while there is much noise the UNet is called at a smaller size; what it finds there is enlarged.

A noisy latent is x0 + sigma * noise, and the mean of m x m of its cells has the noise sigma / m. So there is a smaller
latent with the noise that a pass of its own would have, and the UNet can be asked for the clean picture at its native
size, where it lays out one subject, and at a fraction of the work. Its clean estimate is enlarged such that its means
are the estimate again, and handed to the sampler as if it had been made at full size. The sampler, its schedule and its
random numbers stay as they are.

A pass that begins with noise alone has less of x0 in its latents than they are said to have, by as much as is left of
its first noise. With the noise sigma / m a native pass would have more of it: means taken as they are look to the
model like a pale picture, and it draws one. Made larger (`scale`), they are the latents of a native pass at more noise.

The same hand-over between passes, each with a sampler of its own: FreCaS (arXiv 2410.18410), RectifiedHR (2503.02537).
A size is (height, width) in latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import nn

from .. import patching
from ..arithmetic import per_row, single_precision, table
from ..resizing import bicubic
from ..schedule import Span
from ..sizes import CELL, Size, Sizing
from ..unet_map import BORDERED, Axes, UNetMap
from .part import LAYERS_NOT_CALLED, Inside, Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

BACK_PROJECTIONS = 3
"""How often an enlarged estimate is corrected by what its means are off by; each leaves about a tenth of the error."""

Noise = TypeVar("Noise", float, torch.Tensor)


class Beginning:
    """The noise that a pass begins with, and how much of it is left in later latents.

    A sampler puts clean estimates in its place, and one that adds noise of its own does so faster. It is found by the
    differences of neighbouring cells, where enlarged estimates have next to nothing.

    Args:
        sigma: The pass's first noise.
        channels: Of the latent.
    """

    def __init__(self, sigma: float, channels: int) -> None:
        self._sigma, self._channels = sigma, channels
        self._noise: torch.Tensor | None = None

    def note(self, x: torch.Tensor) -> None:
        """Takes the noise from rows that the UNet is called with at first, [B, C, H, W]."""
        noise = _differences(x[:, : self._channels].float()) * _norm(self._sigma)
        noise = noise / noise.square().sum(1, keepdim=True)
        self._noise = noise if self._noise is None else torch.cat([self._noise, noise])

    def found(self, x: torch.Tensor) -> torch.Tensor | None:
        """How much of it is in each row of what the UNet is called with, [B, C, H, W], in the row's own units: [B].

        A row's own is the one it has most of. None as long as none was noted.
        """
        return None if self._noise is None else _projected(x[:, : self._channels].float(), self._noise)

    def left(self, found: Sequence[float] | None, sigmas: Sequence[float]) -> list[float]:
        """The share of it, 0 to 1, that is left in each row, by what was found and the row's noise.

        If there was no first call to take it from, it is what a sampler that adds no noise leaves.
        """
        most = [self.most_left(sigma) for sigma in sigmas]
        if found is None:
            return most
        return [min(max(0.0, share * _norm(sigma)), limit) for share, sigma, limit in zip(found, sigmas, most)]

    def most_left(self, sigma: float) -> float:
        """The share that is left at that noise if none was added."""
        return sigma / self._sigma


@single_precision
def _projected(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The most that each row of [B, C, H, W] has of any of the noises [R, n], which are given over their squares."""
    return (_differences(x) @ noise.T).amax(1)


def _differences(x: torch.Tensor) -> torch.Tensor:
    """Those of neighbouring cells along both axes: [B, C, H, W] -> [B, n]. Every cell is in as many of them."""
    return torch.cat([(x - x.roll(1, axis)).flatten(1) for axis in (-2, -1)], 1)


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
        x: What the UNet is to be called with, [B, C, H, W]; behind the latent may be what else it is shown.
        size: The smaller size.
        sigmas: The noise's standard deviation over the signal's in each row.
        scales: How many times larger than means the smaller latent of each row is (`scale`).
        unet: Tells the latent's channels, and whether the picture is seamless.
        v_prediction: Whether the UNet predicts v; otherwise the noise.

    Attributes:
        input: What to call it with instead, [B, C, h, w].
        sigmas: The noise of each of its rows.
    """

    def __init__(
        self,
        x: torch.Tensor,
        size: Size,
        sigmas: Sequence[float],
        scales: Sequence[float],
        unet: UNetMap,
        *,
        v_prediction: bool,
    ) -> None:
        self._size, self._seamless, self._v_prediction = (x.shape[-2], x.shape[-1]), unet.seamless, v_prediction
        kept = noise_kept(self._size, size)
        self.sigmas = [sigma * kept * by for sigma, by in zip(sigmas, scales, strict=True)]
        self._sigma, self._small_sigma = per_row(sigmas, x.device), per_row(self.sigmas, x.device)
        self._norm, self._small_norm = _norm(self._sigma), _norm(self._small_sigma)
        small = shrink(x.float(), size)
        self._noisy, self._small = x[:, : unet.out_channels], small[:, : unet.out_channels]
        self._small *= per_row(scales, x.device) * self._norm / self._small_norm
        self.input = small.to(x.dtype)

    def output(self, found: torch.Tensor) -> torch.Tensor:
        """The UNet's answer [B, C, h, w] as it would be of the larger call: [B, C, H, W]."""
        clean = enlarge(self._clean(found.float()), self._size, self._seamless)
        noise = (self._noisy.float() * self._norm - clean) / self._sigma
        answer = (noise - self._sigma * clean) / self._norm if self._v_prediction else noise
        return answer.to(found.dtype)

    def _clean(self, found: torch.Tensor) -> torch.Tensor:
        """The estimate of the clean latent in an answer of the smaller call."""
        if self._v_prediction:
            return (self._small - self._small_sigma * found) / self._small_norm
        return self._small * self._small_norm - self._small_sigma * found


def _norm(sigma: Noise) -> Noise:
    """The standard deviation of a latent of variance 1 with that much noise."""
    return cast(Any, (1 + sigma**2) ** 0.5)


@single_precision
def shrink(x: torch.Tensor, size: Size) -> torch.Tensor:
    """The means of [B, C, H, W] over the areas of [h, w] smaller cells, whole or not: [B, C, h, w]."""
    rows, columns = (_means(small, large, x.device) for small, large in zip(size, x.shape[-2:]))
    return rows @ x @ columns.T


@single_precision
def enlarge(x: torch.Tensor, size: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """A smooth [B, C, H, W] whose means over the cells of [B, C, h, w] are that (bicubic, then back-projected)."""
    small: Size = (x.shape[-2], x.shape[-1])
    large = bicubic(x, size, seamless)
    for _ in range(BACK_PROJECTIONS):
        large = large + bicubic(x - shrink(large, small), size, seamless)
    return large


@lru_cache(maxsize=16)
def noise_kept(large: Size, small: Size) -> float:
    """The standard deviation of independent noise of 1 in the larger cells after `shrink`: 1 / m for m x m cells."""
    means = (_means(*sides, torch.device("cpu")) for sides in zip(small, large))
    return math.prod(float(each.square().sum(1).mean()) for each in means) ** 0.5


@table
def _means(small: int, large: int, device: torch.device) -> torch.Tensor:
    """[small, large]: which share of each smaller-size cell is each larger-size cell; rows sum to 1."""
    ratio = large / small
    begin = torch.arange(small, dtype=torch.float64)[:, None] * ratio
    cells = torch.arange(large, dtype=torch.float64)[None, :]
    inside = torch.minimum(begin + ratio, cells + 1) - torch.maximum(begin, cells)
    return (inside.clamp(min=0) / ratio).float().to(device)


@dataclass(frozen=True)
class Stage:
    """A part of a pass in which the UNet is called at a smaller size.

    Attributes:
        latent: That size, (height, width) in latent cells.
        span: When.
        native: Whether that is the native size, where a pass begins and self-attentions need no windows.
    """

    latent: Size
    span: Span
    native: bool


@dataclass(frozen=True)
class Relay(Part):
    """Smaller calls of the UNet while there is much noise.

    Attributes:
        stages: Their sizes and when, smallest first.
    """

    stages: tuple[Stage, ...]

    name: ClassVar[str] = "relay"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT, Need.FEATURES, Need.RESIZING, Need.PREDICTION})
    not_met: ClassVar[str] = LAYERS_NOT_CALLED

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(stage.span for stage in self.stages)

    def stage(self, inside: Inside) -> Stage | None:
        """The stage that a call of the UNet belongs to; None at full size."""
        return next((stage for stage in self.stages if inside(stage.span)), None)

    def needs_memory(self, inside: Inside) -> bool:
        """At full size, for the pass's first noise."""
        return self.stage(inside) is None

    def resize(self, sizing: Sizing, inside: Inside) -> Sizing:
        stage = self.stage(inside)
        return replace(sizing, latent=stage.latent, native=stage.native) if stage else sizing

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        """The UNet is asked at a smaller size where a stage wants it, and its answer is enlarged."""
        levels, start = run.schedule.levels, run.schedule.timesteps[0]
        beginning = Beginning(levels.sigma(start), plan.unet.out_channels)
        found = run.reading(stack, lambda x, shown: beginning.found(x))
        current: Call | None = None

        def scales(x: torch.Tensor, sigmas: list[float], size: Size) -> list[float]:
            if plan.over_picture:  # which is in its latents wholly, from the first one on
                return [1.0] * len(x)
            kept, left = noise_kept(plan.latent, size), beginning.left(found.values, sigmas)
            for row, timestep in enumerate(run.timesteps):
                if abs(timestep - start) <= levels.tolerance:
                    beginning.note(x[row : row + 1])
                    left[row] = beginning.most_left(sigmas[row])
            return [scale(beginning.most_left(sigma), share, kept) for sigma, share in zip(sigmas, left)]

        def ask_smaller(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            nonlocal current
            current, stage = None, self.stage(run.inside)
            if stage is None:
                return None
            run.did(self.name)
            x, sigmas = args[0], [levels.sigma(timestep) for timestep in run.timesteps]
            scaled = scales(x, sigmas, stage.latent)
            current = Call(x, stage.latent, sigmas, scaled, plan.unet, v_prediction=plan.v_prediction)
            fewer = per_row([levels.at_sigma(sigma) for sigma in current.sigmas], x.device).flatten()
            if len(args) > 1:
                return (current.input, fewer, *args[2:]), kwargs
            return (current.input,), {**kwargs, "timesteps": fewer}

        patching.before_forward(stack, unet, ask_smaller)
        patching.change_output(stack, unet, lambda answer: current.output(answer) if current else answer)

    def told(self, telling: Telling) -> str:
        told: list[str] = []
        for stage in self.stages:
            if ends := telling.ends(self, (self.name, stage.span)):
                height, width = (side * CELL for side in stage.latent)
                told.append(f"{width}x{height} until {ends[0]}")
        return f"{self.name} at {', '.join(told)}{telling.of}" if told else ""
