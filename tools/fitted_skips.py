"""ldm's UNets at any size: what comes up is fitted to its skip connection where a side was odd, as WebUIs do it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from ldm.modules.diffusionmodules import openaimodel


def fit_skips() -> None:
    """Lets every UNet of ldm's take latents whose sides cannot be halved evenly; others are calculated as before."""
    openaimodel.th = _FittingTorch()


class _FittingTorch:
    """`torch`, whose `cat` of two maps first resizes the first to the second."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def cat(self, tensors: list[torch.Tensor] | tuple[torch.Tensor, ...], *args: Any, **kwargs: Any) -> torch.Tensor:
        if len(tensors) == 2 and tensors[0].shape[-2:] != tensors[1].shape[-2:]:
            h, skip = tensors
            tensors = (F.interpolate(h, skip.shape[-2:], mode="nearest"), skip)
        return torch.cat(tensors, *args, **kwargs)
