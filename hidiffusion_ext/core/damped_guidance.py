"""Noise-damped guidance (ScaleCrafter, arXiv 2310.07702, section 3.4).

Strong re-dilation keeps objects whole but denoises worse. So guidance starts from a base evaluation with weaker
re-dilation and takes only its direction from the strong one: base(uncond) + w * (strong(cond) - strong(uncond)).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def damp(rows: torch.Tensor, pictures: Sequence[int], base: torch.Tensor) -> torch.Tensor:
    """Shifts the evaluations of each picture so that ordinary guidance on them is noise-damped guidance.

    With d = base(uncond) - strong(uncond) added to every row of a picture, uncond + w * (cond - uncond) becomes
    base(uncond) + w * (strong(cond) - strong(uncond)), for any number of conditions and any weights.

    Args:
        rows: The strong evaluations [R, ...]; the last B are the unconditional ones, picture by picture.
        pictures: For each row the picture (0 to B - 1) it belongs to.
        base: The base evaluations [B, ...] of the unconditional rows.
    """
    return rows + (base - rows[-len(base) :])[list(pictures)]
