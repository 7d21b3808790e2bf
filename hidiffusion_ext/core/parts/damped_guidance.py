"""Noise-damped guidance (ScaleCrafter, arXiv 2310.07702, section 3.4).

Strong re-dilation keeps objects whole but denoises worse. So guidance starts from a base evaluation with weaker
re-dilation and takes only its direction from the strong one: base(uncond) + w * (strong(cond) - strong(uncond)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..arithmetic import single_precision
from ..evaluation import Change, Evaluation
from ..schedule import Schedule, Span
from .part import NOT_GUIDED, Need, Part
from .redilation import Redilation

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling


@single_precision
def damp(guided: torch.Tensor, uncond: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Noise-damped guidance from ordinary guidance: uncond + w * (cond - uncond) becomes base + w * (cond - uncond).

    Args:
        guided: The result [B, ...] of ordinary guidance, of any number of conditions with any weights.
        uncond: The strong evaluations [B, ...] of the unconditional rows.
        base: The base evaluations of the same rows.
    """
    return guided + (base - uncond)


@dataclass(frozen=True)
class DampedGuidance(Part):
    """Guidance that starts from a base evaluation with weaker re-dilation.

    Attributes:
        span: When.
    """

    span: Span

    name: ClassVar[str] = "noise-damped guidance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GUIDANCE, Need.UNCONDITIONAL})
    rests_on: ClassVar[str] = Redilation.name
    not_met: ClassVar[str] = NOT_GUIDED

    @property
    def spans(self) -> tuple[Span, ...]:
        return (self.span,)

    def evaluates_again(self, plan: Plan, schedule: Schedule, step: int) -> bool:
        return step in plan.guided(schedule, self.span)

    def change(self, plan: Plan, run: Run, begin: torch.Tensor) -> Change:
        def change(evaluation: Evaluation) -> torch.Tensor:
            if not run.inside(self.span):
                return evaluation.guided
            with run.base_evaluation():
                base = evaluation.uncond_again()
            run.did(self.name)
            return damp(evaluation.guided, evaluation.uncond, base)

        return change

    def told(self, telling: Telling) -> str | None:
        if telling.schedule and not self.due(telling.schedule):  # which re-dilation tells
            return None
        ends = telling.ends(self, (self.name, self.span))
        return f"{self.name} until {ends[-1]}{telling.of}" if ends else ""
