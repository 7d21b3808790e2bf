"""Small random UNets with the real structure, built from the real ldm blocks."""

from __future__ import annotations

from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import torch
from ldm.modules.diffusionmodules.openaimodel import Upsample
from snapshot import snapshot
from torch import nn

from hidiffusion_ext.core import Family
from ldm_unet import LdmUNet, Shape, ldm_unet

CONTEXT = 24
"""Width of the text embeddings."""

HEADS = 2


class SizedUNet(LdmUNet):
    """A UNet whose upsamplers go to the size of the skip they will meet, as diffusers' and Forge's do.

    ldm's own fail at the concatenation for sizes that are not divisible by 8 (A1111 hides that).
    """

    def forward(self, x: torch.Tensor, timesteps=None, context=None, y=None, **kwargs) -> torch.Tensor:
        skips = []

        def to_next_skip(module: nn.Module, args: tuple) -> tuple:
            size = skips[-1].shape[-2:] if skips else args[0].shape[-2:]
            return (nn.functional.interpolate(args[0], size=size, mode="nearest"),)

        def remember(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            skips.append(output)

        def forget(module: nn.Module, args: tuple) -> None:
            skips.pop()

        ups = [module.conv for module in self.modules() if isinstance(module, Upsample)]
        with ExitStack() as stack:
            for block in self.input_blocks:
                stack.callback(block.register_forward_hook(remember).remove)
            for block in self.output_blocks:
                stack.callback(block.register_forward_pre_hook(forget).remove)
            for conv in ups:
                stack.callback(conv.register_forward_pre_hook(to_next_skip, prepend=True).remove)
            return super().forward(x, timesteps, context, y, **kwargs)


def tiny_unet(
    family: Family = Family.SD1,
    *,
    in_channels: int = 4,
    depth: int = 1,
    deep: int = 1,
    sized: bool = False,
    seed: int = 0,
) -> LdmUNet:
    """A random UNet with outputs of order 1.

    Args:
        family: Its structure.
        in_channels: 4, or 9 for inpainting.
        depth: Transformer blocks per SpatialTransformer.
        deep: The same for the coarsest transformer level (real SDXL: depth 2, deep 10).
        sized: Build a `SizedUNet`.
        seed: Seed of the weights.
    """
    shape = tiny_shape(family, depth, deep)
    return ldm_unet(shape, kind=SizedUNet if sized else LdmUNet, in_channels=in_channels, seed=seed)


@lru_cache(None)
def shared_unet(*args: Any, **kwargs: Any) -> LdmUNet:
    """A `tiny_unet` for all tests that leave it as it is, which is looked at behind each of their files."""
    unet = tiny_unet(*args, **kwargs)
    SHARED.append((unet, snapshot(unet)))
    return unet


SHARED: list[tuple[LdmUNet, list[Any]]] = []
"""Those, and what they were."""


def tiny_shape(family: Family, depth: int = 1, deep: int = 1) -> Shape:
    """The dimensions of a `tiny_unet`."""
    channels = (32, 64, 64) if family is Family.SDXL else (32, 64, 64, 64)
    return Shape(family, channels, CONTEXT, (HEADS,) * len(channels), depth, deep)


def inputs(
    latent: tuple[int, int], *, batch: int = 1, in_channels: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random latent and text embedding."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, in_channels, *latent, generator=generator)
    return x, torch.randn(batch, 5, CONTEXT, generator=generator)


def uniform_timesteps(steps: int) -> list[float]:
    """The official code's schedule: evenly spaced, the last step at 1."""
    return [1000 / steps * (steps - 1 - i) + 1 for i in range(steps)]
