"""Noise-damped guidance (ScaleCrafter, arXiv 2310.07702, section 3.4).

Strong re-dilation keeps objects whole but denoises worse. So guidance starts from a base evaluation with weaker
re-dilation and takes only its direction from the strong one: base(uncond) + w * (strong(cond) - strong(uncond)).
"""

from __future__ import annotations

import torch

from .apply import Run
from .arithmetic import single_precision
from .done import Work
from .evaluation import Change, Evaluation


def damped(run: Run) -> Change:
    """The change of guidance to noise-damped guidance, in the steps in which the run wants it."""

    def change(evaluation: Evaluation) -> torch.Tensor:
        if not run.damped:
            return evaluation.guided
        with run.base_evaluation():
            base = evaluation.uncond_again()
        run.did(Work.DAMPED)
        return damp(evaluation.guided, evaluation.uncond, base)

    return change


@single_precision
def damp(guided: torch.Tensor, uncond: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Noise-damped guidance from ordinary guidance: uncond + w * (cond - uncond) becomes base + w * (cond - uncond).

    Args:
        guided: The result [B, ...] of ordinary guidance, of any number of conditions with any weights.
        uncond: The strong evaluations [B, ...] of the unconditional rows.
        base: The base evaluations of the same rows.
    """
    return guided + (base - uncond)
