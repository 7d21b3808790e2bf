"""One evaluation of a host's denoiser as guidance leaves it, and what may be changed in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a step, with guidance.

    Attributes:
        guided: The result [B, ...] of guidance, in what the sampler works with: the clean latent, or the noise.
        uncond: What the unconditional rows were evaluated to, [B, ...].
        uncond_again: Evaluates the unconditional rows once more.
    """

    guided: torch.Tensor
    uncond: torch.Tensor
    uncond_again: Callable[[], torch.Tensor]


Change = Callable[[Evaluation], torch.Tensor]
"""`evaluation -> guided, changed`"""
