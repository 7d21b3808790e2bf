"""RAU-Net: resolution-aware down- and upsampling (HiDiffusion, arXiv 2311.17528, section 3.2)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from .. import patching
from ..arithmetic import single_precision
from ..geometry import geometry, kept_to
from ..resizing import bicubic
from ..schedule import Span
from ..sizes import Size, Sizing
from ..unet_map import BORDERED, Axes
from .part import LAYERS_NOT_CALLED, Inside, Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

STRIDED_CONV: dict[str, Any] = geometry(stride=(4, 4), dilation=(2, 2), padding=(2, 2))
"""What the downsampler's own 3x3 convolution (stride 2, dilation 1, padding 1) becomes while active (official code)."""


@single_precision
def pool(x: torch.Tensor, seamless: Axes = BORDERED) -> torch.Tensor:
    """Halves a block's output by averaging 2x2 cells: [B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
    for axis, goes_on in zip((-2, -1), seamless):
        if x.shape[axis] % 2:  # not by ceil_mode, which is wrong on Macs before PyTorch 2.9
            x = torch.cat([x, x.narrow(axis, 0 if goes_on else -1, 1)], axis)
    return F.avg_pool2d(x, 2)


def undo_pool(x: torch.Tensor, size: Size, seamless: Axes = BORDERED) -> torch.Tensor:
    """Brings [B, C, h, w] back to the size before the pool (bicubic, as in the official code)."""
    return bicubic(x, size, seamless)


STRIDE = STRIDED_CONV["stride"][0]
POOL = 2
"""The cells a side that become one."""

STRIDED, POOLED = "strided", "pooled"
"""What is noted as done."""


@dataclass(frozen=True)
class Pair:
    """A reduction of the feature maps and what undoes it.

    Attributes:
        block: The index of the input block that reduces them.
        span: When.
    """

    block: int = 0
    span: Span = Span()


@dataclass(frozen=True)
class RAUNet(Part):
    """Lays a picture out as if it were small.

    Attributes:
        strided: The pair whose downsampler works with stride 4.
        pooled: The pair whose block has its output pooled.
    """

    strided: Pair
    pooled: Pair

    name: ClassVar[str] = "RAU-Net"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES, Need.RESIZING, Need.DOWNSAMPLERS, Need.CONVOLUTIONS})
    not_met: ClassVar[str] = LAYERS_NOT_CALLED

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.strided.span, self.pooled.span

    def resize(self, sizing: Sizing, inside: Inside) -> Sizing:
        if inside(self.strided.span):
            sizing = replace(sizing, strides={**sizing.strides, self.strided.block: STRIDE})
        if inside(self.pooled.span):
            sizing = replace(sizing, pools={**sizing.pools, self.pooled.block: POOL})
        return sizing

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        if run.schedule.steps_inside(self.strided.span):
            self._stride(stack, unet, plan, run)
        if run.schedule.steps_inside(self.pooled.span):
            self._pool(stack, unet, plan, run)

    def _stride(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        """The strided pair's downsampler: the host's own convolution with another stride, dilation and padding. Its
        upsampler is sized as all are.
        """
        name = plan.unet.inputs[self.strided.block].down
        assert name is not None
        downsampler = unet.get_submodule(name)

        def attributes() -> dict[str, Any]:
            if not run.inside(self.strided.span):
                return {}
            run.did(STRIDED)
            return STRIDED_CONV

        def check(x: torch.Tensor) -> torch.Tensor:
            return (
                kept_to(x, run.sizes.inside[self.strided.block]) if run.sizes and run.inside(self.strided.span) else x
            )

        patching.swap_attributes(stack, downsampler, attributes)
        patching.change_output(stack, downsampler, check)

    def _pool(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        """The pooled pair: a smaller output of an input block, undone after the output block that consumes its skip."""
        partner, seamless = plan.unet.partner(self.pooled.block), plan.unet.seamless
        pooled = unet.get_submodule(plan.unet.inputs[self.pooled.block].layers[-1])
        undone = unet.get_submodule(plan.unet.outputs[partner].layers[-1])

        def reduce(x: torch.Tensor) -> torch.Tensor:
            if not run.inside(self.pooled.span):
                return x
            run.did(POOLED)
            return pool(x, seamless)

        def undo(x: torch.Tensor) -> torch.Tensor:
            if run.sizes is None or not run.inside(self.pooled.span):
                return x
            return undo_pool(x, run.sizes.skips[plan.unet.partner(partner + 1)], seamless)

        patching.change_output(stack, pooled, reduce)
        patching.change_output(stack, undone, undo)

    def told(self, telling: Telling) -> str:
        ends = telling.ends(self, (STRIDED, self.strided.span), (POOLED, self.pooled.span))
        if not ends:
            return ""
        stronger = f" (stronger until {ends[0]})" if len(ends) > 1 else ""
        return f"{self.name} until {ends[-1]}{telling.of}{stronger}"
