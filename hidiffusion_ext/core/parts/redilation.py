"""Re-dilation: a convolution that looks further around itself (ScaleCrafter, arXiv 2310.07702, section 3.2).

A factor d that is not whole is made of the next whole dilation D = ceil(d) on an input enlarged by
D / d; the output is brought back to the size the convolution would have given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from .. import patching
from ..geometry import geometry, kept_to
from ..resizing import bilinear
from ..schedule import Schedule, Span
from ..sizes import FeatureSizes, Size
from .dispersion import LARGE, SMALL, dispersed_input
from .part import LAYERS_NOT_CALLED, Inside, Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

Factor = tuple[float, float]
"""(down, across)"""

LEAST = 2
"""A progressive factor does not shrink below this (official code)."""


def factor_at(factor: Factor, step: int, steps: int, *, progressive: bool) -> Factor:
    """The factor at a step of `steps` re-dilated ones: max(ceil(d * (steps - step) / steps), 2) if progressive."""
    if not progressive:
        return factor
    down, across = (d if d <= 1 else float(max(math.ceil(d * ((steps - step) / steps)), LEAST)) for d in factor)
    return down, across


def dilated_attributes(factor: Factor, reach: int = 1) -> dict[str, Any]:
    """What a 3x3 convolution with dilation 1 and padding 1 becomes: dilation D and padding `reach * D` per axis.

    Args:
        factor: The factor per axis.
        reach: Cells from the kernel's centre to its edge: 1 for 3x3, 2 for a dispersed 5x5 kernel.
    """
    down, across = math.ceil(factor[0]), math.ceil(factor[1])
    return geometry(dilation=(down, across), padding=(reach * down, reach * across))


def input_size(size: Size, factor: Factor) -> Size:
    """The size the input is brought to: enlarged by D / d per axis, rounded to the nearest cell."""
    height, width = (round(side * (math.ceil(d) / d)) for side, d in zip(size, factor))
    return height, width


def output_size(size: Size, stride: tuple[int, ...]) -> Size:
    """The size the convolution gives an input of this size without re-dilation."""
    return -(-size[0] // stride[0]), -(-size[1] // stride[1])


DISPERSION = "dispersed convolution"
"""What re-dilation is told with, and noted as done, where kernels are spread."""


@dataclass(frozen=True)
class Site:
    """A convolution that looks further around itself.

    Attributes:
        conv: The name of the module.
        factor: How much further; 1 leaves that axis alone.
        dispersed: Whether half of the factor is made by spreading the kernel.
        base: The factor in the evaluation that noise-damped guidance adds; 1 leaves that axis alone.
    """

    conv: str
    factor: Factor
    dispersed: bool = False
    base: Factor = (1.0, 1.0)


@dataclass(frozen=True)
class Redilation(Part):
    """Convolutions that look further around themselves.

    Attributes:
        sites: Which, how far.
        span: When.
        progressive: Whether factors shrink towards 2 over the span.
    """

    sites: tuple[Site, ...]
    span: Span
    progressive: bool

    name: ClassVar[str] = "re-dilation"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.RESIZING, Need.CONVOLUTIONS})
    not_met: ClassVar[str] = LAYERS_NOT_CALLED

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, DISPERSION) if any(site.dispersed for site in self.sites) else (self.name,)

    @property
    def spans(self) -> tuple[Span, ...]:
        return (self.span,)

    def lesser(self) -> Redilation | None:
        """The same without dispersed convolution."""
        if DISPERSION not in self.names:
            return None
        return replace(self, sites=tuple(replace(site, dispersed=False) for site in self.sites))

    def needs_memory(self, inside: Inside) -> bool:
        return inside(self.span)

    def factor_at(self, site: Site, step: int, schedule: Schedule, *, base: bool) -> Factor | None:
        """How much further a convolution looks at a step of the span; None: as always.

        A progressive factor goes by steps, as the paper's does, so that it is its at every one; a pass that begins late
        goes on where a whole one would be.
        """
        full = site.base if base else site.factor
        if full == (1.0, 1.0):
            return None
        begun, steps = schedule.left_out, len(schedule.steps_inside(self.span))
        down, across = factor_at(full, begun + step, begun + steps, progressive=self.progressive)
        return (down / 2, across / 2) if site.dispersed else (down, across)

    def factors(self, schedule: Schedule, step: int, sizes: FeatureSizes, *, base: bool) -> Mapping[str, float]:
        if step not in schedule.steps_inside(self.span):
            return {}
        factors: dict[str, float] = {}
        for site in self.sites:
            current = self.factor_at(site, step, schedule, base=base)
            if current is not None:
                kernel = LARGE**2 / SMALL**2 if site.dispersed else 1.0
                factors[site.conv] = kernel * math.prod(math.ceil(d) / d for d in current)
        return factors

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        for site in self.sites:
            self._redilate(stack, unet.get_submodule(site.conv), site, plan, run)

    def _redilate(self, stack: ExitStack, conv: nn.Module, site: Site, plan: Plan, run: Run) -> None:
        """One convolution: its input is enlarged, its dilation swapped, its output brought back."""
        assert isinstance(conv, nn.Conv2d)
        seamless = plan.unet.seamless
        size: Size = (0, 0)
        current: Factor | None = None

        def enlarge(x: torch.Tensor) -> torch.Tensor:
            nonlocal size, current
            size, current = (x.shape[-2], x.shape[-1]), None
            if run.inside(self.span):
                current = self.factor_at(site, run.step, run.schedule, base=run.is_base)
            if current is None:
                return x
            run.did(self.name)
            x = bilinear(x, input_size(size, current), seamless)
            if not site.dispersed:
                return x
            run.did(DISPERSION)
            return dispersed_input(x)

        def attributes() -> dict[str, Any]:
            return {} if current is None else dilated_attributes(current, reach=2 if site.dispersed else 1)

        def bring_back(x: torch.Tensor) -> torch.Tensor:
            if current is None:
                return x
            x = kept_to(x, output_size(input_size(size, current), conv.stride))
            return bilinear(x, output_size(size, conv.stride), seamless)

        patching.change_input(stack, conv, enlarge)
        patching.swap_attributes(stack, conv, attributes)
        patching.change_output(stack, conv, bring_back)

    def told(self, telling: Telling) -> str:
        ends = telling.ends(self, (self.name, self.span))
        if not ends:
            return ""
        dispersed = telling.ends(self, (DISPERSION, self.span)) if DISPERSION in self.names else []
        spread = f" with {DISPERSION}" if dispersed else ""
        if dispersed and dispersed != ends:
            spread += f" until {dispersed[-1]} and without it"
        return f"{self.name}{spread} until {ends[-1]}{telling.of}"
