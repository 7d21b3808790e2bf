"""The anchor: holds the large shapes of a pass to the picture that it goes over.

After guidance the clean estimate x becomes x + gain (LP(reference) - LP(x)), the gain falling with the noise variance
from its strength at the first step (ScaleDiff, arXiv 2510.25818; low bands of a guide also in DiffuseHigh, 2406.18459,
and FAM, 2411.18552).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..arithmetic import per_row, single_precision
from ..evaluation import Change, Evaluation
from ..unet_map import Axes
from .part import NOT_GUIDED, Need, Part
from .split_guidance import low_pass

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling


@single_precision
def drawn(
    guided: torch.Tensor, wanted: torch.Tensor, gains: torch.Tensor, enlargement: float, seamless: Axes
) -> torch.Tensor:
    """Estimates [B, C, H, W], their low band drawn to what it is to be, by the share [B, 1, 1, 1] of each row."""
    return guided + gains * (wanted - low_pass(guided, enlargement, seamless))


@dataclass(frozen=True)
class Anchor(Part):
    """Holds large shapes to those that a pass over a picture begins with.

    Attributes:
        strength: The gain at the first step, 0 to 1.
    """

    strength: float

    name: ClassVar[str] = "anchor"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GUIDANCE, Need.CLEAN})
    not_met: ClassVar[str] = NOT_GUIDED

    def change(self, plan: Plan, run: Run, begin: torch.Tensor) -> Change:
        levels, enlargement, seamless = run.schedule.levels, plan.enlargement, plan.unet.seamless
        wanted, first = low_pass(begin.float(), enlargement, seamless), levels.noise(run.schedule.timesteps[0])

        def change(evaluation: Evaluation) -> torch.Tensor:
            nonlocal wanted
            guided = evaluation.guided
            # Another extension may evaluate parts of the picture, or several pictures at once.
            if run.sizes is None or guided.shape != wanted.shape:
                return guided
            run.did(self.name)
            noise = [levels.noise(timestep) for timestep in run.last_timesteps(len(guided))]
            gains = per_row([self.strength * min(1.0, share / first) for share in noise], guided.device)
            wanted = wanted.to(guided.device)
            return drawn(guided, wanted, gains, enlargement, seamless)

        return change

    def told(self, telling: Telling) -> str:
        return telling.whole(self, f"{self.name} {self.strength:g}")
