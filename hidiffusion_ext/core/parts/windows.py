"""MSW-MSA: modified shifted window multi-head self-attention (HiDiffusion, arXiv 2311.17528, section 3.3).

A feature map is cut into 2x2 windows of a quarter of the tokens each, after rolling it by a quarter, a half or
three quarters of a window. A size is (height, width) in latent cells of the level.
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


def even_size(size: Size) -> Size:
    """The smallest even size that holds `size`: twice the window."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def window_shift(size: Size, index: int) -> Size:
    """The roll in cells for shift `index` (0 to 3): the window side divided by 4, rounded down, times the index."""
    height, width = even_size(size)
    return height // 2 // SHIFTS * index, width // 2 // SHIFTS * index


def cycle_index(step: int, site: int) -> int:
    """The deterministic choice: each site goes through all shifts in turn, neighbouring sites out of phase."""
    return (step + site) % SHIFTS


def random_index(generator: torch.Generator) -> int:
    """The paper's choice: each shift with equal probability, drawn anew for every site and step.

    The bounds are those of the official code, which draws one `torch.rand(1)` and compares with .25, .5 and .75.
    """
    draw = float(torch.rand(1, generator=generator))
    return 0 if draw <= 0.25 else 1 if draw <= 0.5 else 2 if draw <= 0.75 else 3


def window_partition(x: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Cuts tokens into windows: [B, H*W, C] -> [4*B, h*w, C] with h, w = half the even size.

    An odd side is first resized to even (bicubic), as in the official code.
    """
    even = even_size(size)
    x = _brought_to(x, size, even, seamless)
    order, _ = _orders(even, shift, x.device)
    return x.index_select(1, order).reshape(4 * len(x), -1, x.shape[-1])


def window_reverse(windows: torch.Tensor, size: Size, shift: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Puts windows back: [4*B, h*w, C] -> [B, H*W, C]; undoes `window_partition` exactly where both sides are even."""
    even = even_size(size)
    _, inverse = _orders(even, shift, windows.device)
    x = windows.reshape(len(windows) // 4, -1, windows.shape[-1]).index_select(1, inverse)
    return _brought_to(x, even, size, seamless)


@table
def _orders(size: Size, shift: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of an even map's tokens in its rolled windows, and the order that puts them back: [H*W] each.

    One indexed copy cuts and rolls at once, in about a third of the time of rolling and then cutting.
    """
    tokens = torch.arange(size[0] * size[1], device=device).view(size)
    rolled = tokens.roll((-shift[0], -shift[1]), (0, 1))
    order = rearrange(rolled, "(ny h) (nx w) -> (ny nx h w)", ny=2, nx=2)
    return order, order.argsort()


def _brought_to(x: torch.Tensor, source: Size, target: Size, seamless: Axes) -> torch.Tensor:
    if source == target:
        return x
    x = rearrange(x, "b (h w) c -> b c h w", h=source[0])
    x = bicubic(x, target, seamless)
    return rearrange(x, "b c h w -> b (h w) c")


WINDOWED = 1 / 4
"""What four windows of a quarter of the tokens each multiply, over what they do together: 4 / 4**2."""

ODD = "odd windows"
"""What is noted as done where a side had to be resized."""


def size_seen(unet: UNetMap, site: SelfAttention, sizes: FeatureSizes) -> Size:
    """The size of the feature map that a self-attention is given."""
    return sizes.skips[unet.partner(site.block)] if site.output else sizes.inside[site.block]


@dataclass(frozen=True)
class MSWMSA(Part):
    """Windows around self-attentions, for the whole pass.

    Attributes:
        sites: The self-attentions.
        shift: How the windows move.
    """

    sites: tuple[SelfAttention, ...]
    shift: WindowShift = WindowShift.CYCLE

    name: ClassVar[str] = "MSW-MSA"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TOKENS})
    not_met: ClassVar[str] = "self-attention was never given the picture as it is"

    def factors(self, schedule: Schedule, step: int, sizes: FeatureSizes, *, base: bool) -> Mapping[str, float]:
        return {} if sizes.native else {site.name: WINDOWED for site in self.sites}

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
        current: tuple[Size, Size] | None = None

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
            current = size, window_shift(size, self.index(number, run))
            cut = window_partition(x, *current, unet.seamless)
            run.did(self.name)
            if even_size(size) != size:
                run.did(ODD)
            return tuple(cut if o is x else o for o in args), {name: cut if o is x else o for name, o in kwargs.items()}

        patching.before_forward(stack, attention, partition)
        patching.change_output(stack, attention, lambda x: window_reverse(x, *current, unet.seamless) if current else x)

    def told(self, telling: Telling) -> str:
        is_odd = self._is_odd(telling) if telling.done is None else ODD in telling.done.least
        return telling.whole(self, self.name + " on resized odd feature maps" * is_odd)

    def _is_odd(self, telling: Telling) -> bool:
        """Whether windows will meet a side that can be cut in two only after resizing it."""
        plan = telling.plan
        phases = (plan.sizes(inside) for inside in plan.phases(telling.schedule))
        seen = (size_seen(plan.unet, site, sizes) for sizes in phases if not sizes.native for site in self.sites)
        return any(even_size(size) != size for size in seen)
