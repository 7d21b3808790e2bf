"""Frequency-split guidance: stronger for what a larger picture adds than for what the smaller one had.

With c and u the conditional and unconditional estimates and w the guidance scale, ordinary guidance u + w (c - u)
becomes u + w LP(c - u) + ratio w HP(c - u), the low band being what fits into the smaller picture (FreCaS, arXiv
2410.18410; frequency-decoupled guidance, arXiv 2506.19713).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..arithmetic import per_row, single_precision
from ..evaluation import Change, Evaluation
from ..resizing import bilinear
from ..sizes import Size
from ..unet_map import BORDERED, Axes
from .part import NOT_GUIDED, Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

FALLS_FROM = 0.2
"""The share of the noise schedule that is left when the ratio begins to fall to 1, which it reaches at the end."""


@single_precision
def split(
    guided: torch.Tensor,
    uncond: torch.Tensor,
    enlargement: float,
    ratios: torch.Tensor | float,
    seamless: Axes = BORDERED,
) -> torch.Tensor:
    """Frequency-split guidance from ordinary guidance, of any number of conditions with any weights: [B, C, H, W].

    The ratio can be another one for each row, [B, 1, 1, 1].
    """
    direction = guided - uncond
    return guided + (ratios - 1) * (direction - low_pass(direction, enlargement, seamless))


@single_precision
def low_pass(x: torch.Tensor, enlargement: float, seamless: Axes = BORDERED) -> torch.Tensor:
    """What of [B, C, H, W] fits into sides so many times smaller: averaged down by area, brought back bilinearly."""
    size: Size = (x.shape[-2], x.shape[-1])
    small = [max(1, round(side / enlargement)) for side in size]
    return bilinear(F.interpolate(x, size=small, mode="area"), size, seamless)


@dataclass(frozen=True)
class SplitGuidance(Part):
    """Stronger guidance of small things, in a pass over a picture.

    Attributes:
        ratio: Guidance of the high band over that of the low one.
    """

    ratio: float

    name: ClassVar[str] = "split guidance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GUIDANCE})
    not_met: ClassVar[str] = NOT_GUIDED

    def change(self, plan: Plan, run: Run, begin: torch.Tensor) -> Change:
        def change(evaluation: Evaluation) -> torch.Tensor:
            if run.sizes is None:
                return evaluation.guided
            run.did(self.name)
            guided = evaluation.guided
            left = [run.schedule.levels.left(timestep) for timestep in run.last_timesteps(len(guided))]
            ratios = per_row([1 + (self.ratio - 1) * min(1.0, share / FALLS_FROM) for share in left], guided.device)
            return split(guided, evaluation.uncond, plan.enlargement, ratios, plan.unet.seamless)

        return change

    def told(self, telling: Telling) -> str:
        return telling.whole(self, f"{self.name} {self.ratio:g}")
