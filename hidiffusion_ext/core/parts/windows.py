"""MSW-MSA: modified shifted window multi-head self-attention (HiDiffusion, arXiv 2311.17528, section 3.3).

A feature map is cut into 2x2 windows of a quarter of the tokens each, after rolling it by a quarter, a half or
three quarters of a window. Second passes over far larger pictures have more windows. A size is (height, width) in
latent cells of the level.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from einops import rearrange
from torch import nn

from .. import patching
from ..arithmetic import table
from ..options import WindowShift
from ..resizing import bicubic
from ..schedule import Schedule
from ..sizes import FeatureSizes, Size
from ..unet_map import BORDERED, Axes, SelfAttention, UNetMap
from .part import Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

SHIFTS = 4
"""The grid is rolled by 0, 1/4, 2/4 or 3/4 of a window."""


USUAL = 2
"""Windows a side, as in the paper."""


def even_size(size: Size, across: int = USUAL) -> Size:
    """The smallest size that holds `size` and can be cut into so many windows a side."""
    return size[0] + -size[0] % across, size[1] + -size[1] % across


def window_shift(size: Size, index: int, across: int = USUAL) -> Size:
    """The roll in cells for shift `index` (0 to 3): the window side divided by 4, rounded down, times the index."""
    height, width = even_size(size, across)
    return height // across // SHIFTS * index, width // across // SHIFTS * index


def cycle_index(step: int, site: int) -> int:
    """The deterministic choice: each site goes through all shifts in turn, neighbouring sites out of phase."""
    return (step + site) % SHIFTS


def random_index(generator: torch.Generator) -> int:
    """The paper's choice: each shift with equal probability, drawn anew for every site and step.

    The bounds are those of the official code, which draws one `torch.rand(1)` and compares with .25, .5 and .75.
    """
    draw = float(torch.rand(1, generator=generator))
    return 0 if draw <= 0.25 else 1 if draw <= 0.5 else 2 if draw <= 0.75 else 3


def window_partition(
    x: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED, across: int = USUAL
) -> torch.Tensor:
    """Cuts tokens into windows, `across` a side: [B, H*W, C] -> [across^2*B, h*w, C] with h, w = a window's sides.

    A side that cannot be cut is first resized (bicubic), as in the official code.
    """
    even = even_size(size, across)
    x = _brought_to(x, size, even, seamless)
    order, _ = _orders(even, shift, across, x.device)
    return x.index_select(1, order).reshape(across**2 * len(x), -1, x.shape[-1])


def window_reverse(
    windows: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED, across: int = USUAL
) -> torch.Tensor:
    """Puts windows back: [across^2*B, h*w, C] -> [B, H*W, C]; undoes `window_partition` exactly where both sides could
    be cut.
    """
    even = even_size(size, across)
    _, inverse = _orders(even, shift, across, windows.device)
    x = windows.reshape(len(windows) // across**2, -1, windows.shape[-1]).index_select(1, inverse)
    return _brought_to(x, even, size, seamless)


@table
def _orders(size: Size, shift: Size, across: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of a map's tokens in its rolled windows, and the order that puts them back: [H*W] each.

    One indexed copy cuts and rolls at once, in about a third of the time of rolling and then cutting.
    """
    tokens = torch.arange(size[0] * size[1], device=device).view(size)
    rolled = tokens.roll((-shift[0], -shift[1]), (0, 1))
    order = rearrange(rolled, "(ny h) (nx w) -> (ny nx h w)", ny=across, nx=across)
    return order, order.argsort()


def _brought_to(x: torch.Tensor, source: Size, target: Size, seamless: Axes) -> torch.Tensor:
    if source == target:
        return x
    x = rearrange(x, "b (h w) c -> b c h w", h=source[0])
    x = bicubic(x, target, seamless)
    return rearrange(x, "b c h w -> b (h w) c")


ODD = "odd windows"
"""What is noted as done where a side had to be resized."""


def size_seen(unet: UNetMap, site: SelfAttention, sizes: FeatureSizes) -> Size:
    """The size of the feature map that a self-attention is given."""
    return sizes.skips[unet.partner(site.block)] if site.output else sizes.inside[site.block]


def native_windows(plan: Plan) -> int:
    """As many windows a side as a pass's sides are longer than native ones, so that each has the tokens of training;
    fewer where its feature maps cannot be cut into that many, but not fewer than usual.
    """
    seen = [size_seen(plan.unet, site, plan.sizes()) for site in plan.unet.finest_attentions]
    possible = range(round(plan.enlargement), USUAL, -1)
    return next((across for across in possible if all(even_size(size, across) == size for size in seen)), USUAL)


@dataclass(frozen=True)
class MSWMSA(Part):
    """Windows around self-attentions, for the whole pass.

    Attributes:
        sites: The self-attentions.
        shift: How the windows move.
        across: How many there are a side, where feature maps have the size of the pass's own latent. In others there
            are as many as usual.
    """

    sites: tuple[SelfAttention, ...]
    shift: WindowShift = WindowShift.CYCLE
    across: int = USUAL

    name: ClassVar[str] = "MSW-MSA"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TOKENS})
    not_met: ClassVar[str] = "self-attention was never given the picture as it is"

    def factors(self, schedule: Schedule, step: int, sizes: FeatureSizes, *, base: bool) -> Mapping[str, float]:
        return {} if sizes.native else {site.name: 1 / self._across(sizes) ** 2 for site in self.sites}

    def _across(self, sizes: FeatureSizes) -> int:
        return USUAL if sizes.changed else self.across

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        if self.shift is WindowShift.RANDOM and run.generator is None:
            raise ValueError("random window shifts need a Run with a generator")
        for number, site in enumerate(self.sites):
            self._window(stack, unet.get_submodule(site.name), number, plan.unet, run)

    def index(self, number: int, run: Run) -> int:
        """The number of the shift at a site in the current step, the same in all its calls.

        Random ones are drawn step by step and site by site, as a sampler comes to them that calls the UNet once a step.
        """
        if self.shift is WindowShift.CYCLE:
            return cycle_index(run.step, number)
        assert run.generator is not None
        drawn: list[list[int]] = run.kept.setdefault(self.name, [])
        while len(drawn) <= run.step:
            drawn.append([random_index(run.generator) for _ in self.sites])
        return drawn[run.step][number]

    def _window(self, stack: ExitStack, attention: nn.Module, number: int, unet: UNetMap, run: Run) -> None:
        """One self-attention: its input is partitioned, its output put back together."""
        current: tuple[Size, Size, Axes, int] | None = None

        def partition(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            nonlocal current
            current = None
            if run.sizes is None or run.sizes.native:
                return None
            x, size = args[0], size_seen(unet, self.sites[number], run.sizes)
            # Another length or another context is not plain self-attention over the picture (reference ControlNet,
            # token merging): that call stays as it is.
            others = (*args[1:], *kwargs.values())
            if x.shape[1] != size[0] * size[1] or any(isinstance(o, torch.Tensor) and o is not x for o in others):
                return None
            across = self._across(run.sizes)
            current = size, window_shift(size, self.index(number, run), across), unet.seamless, across
            cut = window_partition(x, *current)
            run.did(self.name)
            if even_size(size, across) != size:
                run.did(ODD)
            return tuple(cut if o is x else o for o in args), {name: cut if o is x else o for name, o in kwargs.items()}

        patching.before_forward(stack, attention, partition)
        patching.change_output(stack, attention, lambda x: window_reverse(x, *current) if current else x)

    def told(self, telling: Telling) -> str:
        is_odd = self._is_odd(telling) if telling.done is None else ODD in telling.done.least
        more = f" in {self.across}x{self.across} windows" * (self.across != USUAL)
        return telling.whole(self, self.name + more + " on resized odd feature maps" * is_odd)

    def _is_odd(self, telling: Telling) -> bool:
        """Whether windows will meet a side that can be cut only after resizing it."""
        plan = telling.plan
        phases = [sizes for sizes in map(plan.sizes, plan.phases(telling.schedule)) if not sizes.native]
        seen = ((size_seen(plan.unet, site, sizes), self._across(sizes)) for sizes in phases for site in self.sites)
        return any(even_size(size, across) != size for size, across in seen)
