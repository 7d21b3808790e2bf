"""The anchor: holds the large shapes of a pass to the picture that it goes over.

After guidance the clean estimate x becomes x + gain (LP(reference) - LP(x)), the gain falling with the noise variance
from its strength at the first step (ScaleDiff, arXiv 2510.25818; low bands of a guide also in DiffuseHigh, 2406.18459,
and FAM, 2411.18552).
"""

from __future__ import annotations

import torch

from .apply import Run
from .arithmetic import per_row, single_precision
from .done import Work
from .evaluation import Change, Evaluation
from .split_guidance import low_pass
from .unet_map import BORDERED, Axes


def anchored(
    run: Run, reference: torch.Tensor, enlargement: float, strength: float, seamless: Axes = BORDERED
) -> Change:
    """The change of guidance that holds the clean estimate to a reference.

    Args:
        run: The pass; its sampler works with clean estimates.
        reference: The latent [B, C, H, W] that the pass begins with, without noise.
        enlargement: How many times longer the picture's sides are than those that its large shapes fit into.
        strength: The gain at the first step, 0 to 1.
        seamless: The axes along which the picture goes on at its other edge.
    """
    levels = run.schedule.levels
    wanted, first = low_pass(reference.float(), enlargement, seamless), levels.noise(run.schedule.timesteps[0])

    def change(evaluation: Evaluation) -> torch.Tensor:
        nonlocal wanted
        guided = evaluation.guided
        # Another extension may evaluate parts of the picture, or several pictures at once.
        if run.sizes is None or guided.shape != wanted.shape:
            return guided
        run.did(Work.ANCHOR)
        noise = [levels.noise(timestep) for timestep in run.last_timesteps(len(guided))]
        gains = per_row([strength * min(1.0, share / first) for share in noise], guided.device)
        wanted = wanted.to(guided.device)
        return drawn(guided, wanted, gains, enlargement, seamless)

    return change


@single_precision
def drawn(
    guided: torch.Tensor, wanted: torch.Tensor, gains: torch.Tensor, enlargement: float, seamless: Axes
) -> torch.Tensor:
    """Estimates [B, C, H, W], their low band drawn to what it is to be, by the share [B, 1, 1, 1] of each row."""
    return guided + gains * (wanted - low_pass(guided, enlargement, seamless))
